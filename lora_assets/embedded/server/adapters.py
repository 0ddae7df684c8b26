"""The adapters that the server has loaded, by name, and the names that it can resolve."""

import asyncio
import logging
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from lora_assets.embedded.server.api_error import ApiError, internal_error, not_found
from lora_assets.embedded.server.calls import Adapter
from lora_assets.embedded.server.decoder import Decoder
from lora_assets.embedded.server.lora import AdapterMissing, AdapterUnfit, load_lora
from lora_assets.errors import LoraAssetsError
from lora_assets.serving.vllm_plugin.slots import named_folder

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class LoadedAdapter:
    """A name that answers: `root` is the path as it was given."""

    adapter: Adapter
    root: str


class Adapters:
    """Names and what they stand for; every change of a name waits for the one before it.

    Unloading forgets the name only: rows under way keep the weights they began with. Raises
    ApiError with vLLM's status codes and words.
    """

    def __init__(self, decoder: Decoder, base_name: str, folder: Path, max_rank: int) -> None:
        self._decoder = decoder
        self._base_name = base_name
        self._folder = folder
        self._max_rank = max_rank
        self._loaded: dict[str, LoadedAdapter] = {}
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    @property
    def loaded(self) -> Mapping[str, LoadedAdapter]:
        """Return what is loaded by name, in the order of loading."""
        return self._loaded

    def name_of(self, adapter: Adapter | None) -> str:
        """Return the adapter's name, or the base model's for None."""
        return self._base_name if adapter is None else adapter.name

    async def load(self, name: str, root: str, load_inplace: bool) -> str:
        """Load the folder `root` under a name; return vLLM's sentence of success."""
        async with self._locks[name]:
            if not name or not root:
                raise _invalid("Both 'lora_name' and 'lora_path' must be provided.")
            if name == self._base_name:
                raise _invalid(f"The lora adapter '{name}' conflicts with a served base model.")
            if name in self._loaded and not load_inplace:
                raise _invalid(
                    f"The lora adapter '{name}' has already been loaded. If you want to load the"
                    " adapter in place, set 'load_inplace' to True."
                )
            try:
                await self._read(name, Path(root), root)
            except AdapterMissing as error:
                raise not_found(f"Loading lora {name} failed: {error.cause}") from None
            except AdapterUnfit as error:
                # vLLM's own status for an adapter that its engine refuses.
                raise internal_error(f"Call to add_lora method failed: {error}") from None
            except LoraAssetsError as error:
                raise ApiError(str(error)) from None
            return f"Success: LoRA adapter '{name}' added successfully."

    async def unload(self, name: str) -> str:
        """Forget a name; return vLLM's sentence of success."""
        async with self._locks[name]:
            if not name:
                raise _invalid("'lora_name' needs to be provided to unload a LoRA adapter.")
            if name not in self._loaded:
                raise not_found(f"The lora adapter '{name}' cannot be found.")
            del self._loaded[name]
            logger.info("Unloaded adapter %s", name)
            return f"Success: LoRA adapter '{name}' removed successfully."

    async def find(self, model: str | None) -> Adapter | None:
        """Return what a request's `model` stands for; None is the base model.

        A name that is not loaded is looked up among the folder's names, as vLLM does with
        lora_assets.serving.vllm_plugin.middleware.
        """
        if not model or model == self._base_name:
            return None
        if (loaded := self._loaded.get(model)) is not None:
            return loaded.adapter
        folder = await asyncio.to_thread(named_folder, self._folder, model)
        if folder is None:
            raise not_found(
                f"The model `{model}` does not exist. Valid aliases: {self._base_name}.", "model"
            )
        async with self._locks[model]:
            if model not in self._loaded:
                try:
                    await self._read(model, folder, str(folder))
                except LoraAssetsError as error:
                    logger.warning("Adapter %s could not be loaded: %s", model, error)
                    raise ApiError(
                        f"LoRA adapter '{model}' was found but could not be loaded."
                    ) from None
            return self._loaded[model].adapter

    async def _read(self, name: str, folder: Path, root: str) -> None:
        decoder = self._decoder
        weights = await asyncio.to_thread(
            load_lora, folder, decoder.shapes, decoder.layers, self._max_rank
        )
        self._loaded[name] = LoadedAdapter(Adapter(name, weights), root)
        logger.info("Loaded adapter %s from %s", name, root)


def _invalid(message: str) -> ApiError:
    return ApiError(message, "InvalidUserInput")
