"""An adapter as files: which it may have, and the digest that is its only identity."""

import re
from collections.abc import Mapping
from pathlib import Path

from pydantic import BaseModel, ValidationError
from safetensors import SafetensorError, safe_open

from lora_assets.errors import LoraAssetsError, validation_line
from lora_assets.records.served import AdapterShape
from lora_assets.serving.vllm_plugin.adapters_folder import FILES, digest_folder

CONFIG, WEIGHTS = FILES
PICKLED = "adapter_model.bin"
"""Weights as peft saved them before safetensors; loading a pickle runs what is in it."""


class _Config(BaseModel):
    """The part of peft's adapter_config.json that serving depends on."""

    r: int
    base_model_name_or_path: str
    bias: str = "none"
    lora_bias: bool = False
    use_dora: bool = False
    modules_to_save: list[str] | None = None
    trainable_token_indices: list[int] | dict[str, list[int]] | None = None

    @property
    def beyond_lora(self) -> dict[str, bool]:
        """Return what vLLM can't serve (0.32), and whether the adapter has it."""
        return {
            "DoRA (use_dora)": self.use_dora,
            "modules beside its LoRA (modules_to_save)": bool(self.modules_to_save),
            "trained token embeddings (trainable_token_indices)": bool(
                self.trainable_token_indices
            ),
            "biases (bias, lora_bias)": self.bias != "none" or self.lora_bias,
        }


_MODULE = re.compile(r"base_model\.model\.(?P<module>.+)\.lora_(?P<side>[AB])\.weight")


def inspect(folder: Path) -> AdapterShape:
    """Return what an adapter asks of a server; refuse a folder that is more or less than that.

    Raise LoraAssetsError naming the file: a link, a folder, anything beside the two files
    of a safetensors adapter (a pickle above all), or a file that can't be read as what it is.
    """
    if not folder.is_dir():
        raise LoraAssetsError(f"There is no adapter folder {folder}", "Train the adapter first.")
    for path in sorted(folder.iterdir()):
        if path.is_symlink() or not path.is_file() or path.name not in FILES:
            raise LoraAssetsError(
                f"Adapter {folder} holds {path.name!r}, which is not part of a safetensors adapter",
                f"Keep only {CONFIG} and {WEIGHTS}; pickled weights are never loaded.",
            )
    try:
        config = _Config.model_validate_json((folder / CONFIG).read_bytes())
        with safe_open(str(folder / WEIGHTS), framework="numpy") as weights:
            shapes = {name: weights.get_slice(name).get_shape() for name in weights.keys()}  # noqa: SIM118  (no mapping)
    except FileNotFoundError as error:
        raise LoraAssetsError(
            f"Adapter {folder} lacks a file: {error}", "Train it again."
        ) from None
    except (ValidationError, SafetensorError) as error:
        reason = str(error).partition("\n")[0]
        if isinstance(error, ValidationError):
            reason = validation_line(error)
        raise LoraAssetsError(f"Adapter {folder} is damaged: {reason}", "Train it again.") from None
    if not shapes:
        raise LoraAssetsError(f"Adapter {folder} has no weights", "Train it again.")
    ranks = [shape[0] for name, shape in shapes.items() if name.endswith(".lora_A.weight")]
    return AdapterShape(
        rank=max((config.r, *ranks)),
        base_model=config.base_model_name_or_path,
        modules=_modules(shapes),
    )


def refuse_unservable(folder: Path, max_rank: int) -> None:
    """Refuse an adapter that `inspect` takes but vLLM can't serve, with every reason."""
    config = _Config.model_validate_json((folder / CONFIG).read_bytes())
    reasons = [what for what, has in config.beyond_lora.items() if has]
    with safe_open(str(folder / WEIGHTS), framework="numpy") as weights:
        others = [name for name in weights.keys() if not _MODULE.fullmatch(name)]  # noqa: SIM118  (no mapping)
    if others and not reasons:
        reasons.append(f"{others[0]}, which is no LoRA of a linear layer")
    if (rank := inspect(folder).rank) > max_rank:
        reasons.append(f"rank {rank}, above the server's {max_rank} (VLLM_MAX_LORA_RANK)")
    if reasons:
        raise LoraAssetsError(
            f"vLLM can't serve the adapter: it has {'; '.join(reasons)}",
            "Train a LoRA without that.",
        )


def _modules(shapes: Mapping[str, list[int]]) -> dict[str, tuple[int, int]]:
    """Return module path to (out, in), from the shapes of A (rank, in) and B (out, rank)."""
    sides = {
        (match["module"], match["side"]): shape
        for name, shape in shapes.items()
        if (match := _MODULE.fullmatch(name)) is not None
    }
    return {
        module: (sides[module, "B"][0], shape[-1])
        for (module, side), shape in sides.items()
        if side == "A" and (module, "B") in sides
    }


def verify(folder: Path, digest: str) -> AdapterShape:
    """Refuse, by name, a folder whose bytes are not the ones that `digest` was taken from."""
    shape = inspect(folder)
    actual = digest_folder(folder)
    if actual != digest:
        raise LoraAssetsError(
            f"Adapter {folder} has digest {actual[:12]}, expected {digest[:12]}",
            "Its bytes have changed; take it from the registry again or train it again.",
        )
    return shape
