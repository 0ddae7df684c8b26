"""An adapter as files: which it may have, and the digest that is its only identity."""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from pydantic import BaseModel, PositiveInt, ValidationError
from safetensors import SafetensorError, safe_open

from lora_assets.errors import LoraAssetsError, validation_line
from lora_assets.records.served import AdapterShape
from lora_assets.serving.vllm_plugin.adapters_folder import FILES, digest_folder

CONFIG, WEIGHTS = FILES
PICKLED = "adapter_model.bin"
"""Weights as peft saved them before safetensors; loading a pickle runs what is in it."""


_PLAIN_STARTS = ("gaussian", "eva", "orthogonal", "mica", "lora_ga")
"""How training may have begun without a change to the base model; PiSSA and OLoRA change it."""


class LoraFeatures(BaseModel):
    """The parts of peft's adapter_config.json by which an adapter is more than a plain LoRA."""

    bias: str = "none"
    lora_bias: bool = False
    use_dora: bool = False
    modules_to_save: list[str] | None = None
    trainable_token_indices: list[int] | dict[str, list[int]] | None = None
    init_lora_weights: bool | str | None = True
    alora_invocation_tokens: list[int] | None = None
    layer_replication: list[tuple[int, int]] | None = None

    @property
    def beyond_lora(self) -> dict[str, bool]:
        """Return what vLLM can't serve (0.32), and whether the adapter has it."""
        start = self.init_lora_weights
        return {
            "DoRA (use_dora)": self.use_dora,
            "modules beside its LoRA (modules_to_save)": bool(self.modules_to_save),
            "trained token embeddings (trainable_token_indices)": bool(
                self.trainable_token_indices
            ),
            "biases (bias, lora_bias)": self.bias != "none" or self.lora_bias,
            f"a start that may have changed the base model (init_lora_weights={start})": (
                isinstance(start, str) and start.lower() not in _PLAIN_STARTS
            ),
            "tokens that switch it on (alora_invocation_tokens)": bool(
                self.alora_invocation_tokens
            ),
            "layers that it repeats (layer_replication)": bool(self.layer_replication),
        }


class _Config(LoraFeatures):
    """The part of peft's adapter_config.json that serving depends on."""

    r: PositiveInt
    base_model_name_or_path: str


_HEADER = "a header"
MOST_BYTES: Mapping[str, int] = {
    CONFIG: 1 << 20, WEIGHTS: 16 << 30, PICKLED: 16 << 30, _HEADER: 8 << 20
}  # fmt: skip
"""Rank 512 on every linear layer of a model of 70 billion parameters takes 13 GiB in bf16. The
header of safetensors is read whole."""
MOST_TENSORS = 20_000
"""A large adapter has some thousand."""

FLOATS = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2"}
"""The types of safetensors that weights may have; numpy has no bfloat16."""

MODULE = re.compile(r"base_model\.model\.(?P<module>.+)\.lora_(?P<side>[AB])\.weight")
_HALF = re.compile(r"(?P<start>.+\.lora_)(?P<side>[AB])\.weight")
_EMBEDDING = re.compile(r"\.(embed_tokens|lm_head)\.")


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
        refuse_oversized(folder)
        config = _Config.model_validate_json((folder / CONFIG).read_bytes())
        shapes = tensor_shapes(folder / WEIGHTS)
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
    fault = next(misshapen(shapes), None)
    modules = {} if fault else lora_modules(shapes)
    if not modules:
        fault = fault or f"{next(iter(shapes))} is no LoRA of a linear layer"
        raise LoraAssetsError(f"Adapter {folder} does not fit: {fault}", "Train it again.")
    ranks = [shape[0] for name, shape in shapes.items() if name.endswith(".lora_A.weight")]
    return AdapterShape(
        rank=max((config.r, *ranks)),
        base_model=config.base_model_name_or_path,
        modules=modules,
    )


def refuse_oversized(folder: Path) -> None:
    """Refuse, by name and before it is read, an adapter with more than any has that can be served.

    Raise FileNotFoundError where a file is missing.
    """
    sizes = {name: (folder / name).stat().st_size for name in FILES}
    refuse_larger(folder, sizes)
    with (folder / WEIGHTS).open("rb") as file:
        header = int.from_bytes(file.read(8), "little")
    # A header that is longer than its file is for safetensors to name.
    if header <= sizes[WEIGHTS]:
        refuse_larger(folder, {_HEADER: header})


def refuse_larger(adapter: Path | str, sizes: Mapping[str, int]) -> None:
    """Refuse an adapter that has a file of more bytes than any has that can be served."""
    for name, size in sizes.items():
        if size > (most := MOST_BYTES[name]):
            raise LoraAssetsError(
                f"Adapter {adapter} has {name} of {size} bytes, more than {most}", "Train a LoRA."
            )


def tensor_shapes(weights: Path) -> Mapping[str, Sequence[int]]:
    """Return the shape of each tensor in a safetensors file, by name; refuse what is no float."""
    with safe_open(str(weights), framework="numpy") as tensors:
        names = list(tensors.keys())
        if len(names) > MOST_TENSORS:
            raise LoraAssetsError(
                f"{weights} has {len(names)} tensors, more than {MOST_TENSORS}", "Train a LoRA."
            )
        slices = {name: tensors.get_slice(name) for name in names}
        for name, each in slices.items():
            if (kind := each.get_dtype()) not in FLOATS:
                raise LoraAssetsError(
                    f"{weights}: {name} holds {kind}, not floating-point numbers", "Train a LoRA."
                )
        return {name: each.get_shape() for name, each in slices.items()}


def misshapen(
    shapes: Mapping[str, Sequence[int]], rank_of: Callable[[str], int] | None = None
) -> Iterator[str]:
    """Yield what is no half of a LoRA of one rank: that of `rank_of` for its name, where given."""
    for name, shape in shapes.items():
        if (match := _HALF.fullmatch(name)) is None:
            continue
        half = "B" if match["side"] == "A" else "A"
        other = shapes.get(f"{match['start']}{half}.weight")
        if len(shape) != 2 or 0 in shape:
            yield f"{name} has shape {list(shape)}, which is not a matrix"
        elif other is None:
            yield f"{name} has no lora_{half} beside it"
        elif half == "B" and len(other) == 2:
            wanted = rank_of(name) if rank_of else shape[0]
            if not shape[0] == other[1] == wanted:
                says = f", where {CONFIG} says {wanted}" if rank_of else ""
                yield f"{name} has rank {shape[0]} in A and {other[1]} in B{says}"


def refuse_unservable(folder: Path, max_rank: int) -> None:
    """Refuse an adapter that `inspect` takes but vLLM can't serve, with every reason."""
    rank = inspect(folder).rank
    config = _Config.model_validate_json((folder / CONFIG).read_bytes())
    refuse_features(config, tensor_shapes(folder / WEIGHTS), rank, max_rank)


def refuse_features(
    config: LoraFeatures, tensors: Iterable[str], rank: int, max_rank: int, *others: str
) -> None:
    """Refuse what vLLM can't serve (0.32: all but LoRAs of linear layers), and `others`."""
    reasons = [what for what, has in config.beyond_lora.items() if has]
    odd = next((name for name in tensors if not MODULE.fullmatch(name)), None)
    odd = odd or next((name for name in tensors if _EMBEDDING.search(name)), None)
    if odd and not reasons:
        embedding = "trained embeddings: " if _EMBEDDING.search(odd) else ""
        reasons.append(f"{embedding}{odd}, which is no LoRA of a linear layer")
    if rank > max_rank:
        reasons.append(f"rank {rank}, above the server's {max_rank} (VLLM_MAX_LORA_RANK)")
    if reasons := [*reasons, *others]:
        raise LoraAssetsError(
            f"vLLM can't serve the adapter: it has {'; '.join(reasons)}",
            "Train a LoRA without that.",
        )


def lora_modules(shapes: Mapping[str, Sequence[int]]) -> dict[str, tuple[int, int]]:
    """Return module path to (out, in), from the shapes of A (rank, in) and B (out, rank)."""
    sides = {
        (match["module"], match["side"]): shape
        for name, shape in shapes.items()
        if (match := MODULE.fullmatch(name)) is not None
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
