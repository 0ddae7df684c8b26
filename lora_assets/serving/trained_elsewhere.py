"""An adapter that was trained elsewhere (TRL, Unsloth, Axolotl, LLaMA-Factory), made one of ours.

Refused is what would be served otherwise than it was trained. Of peft's configuration only what
serving needs is written anew: peft imports modules that a configuration names (`megatron_core`).
"""

import json
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.numpy import save_file

from lora_assets.errors import LoraAssetsError, validation_line
from lora_assets.serving.adapter_files import (
    CONFIG,
    FLOATS,
    MODULE,
    PICKLED,
    WEIGHTS,
    lora_modules,
    misshapen,
    refuse_features,
    refuse_oversized,
    tensor_shapes,
)
from lora_assets.serving.peft_config import PeftConfig, PeftKind

Modules = Mapping[str, tuple[int, int]]


def rewrite(
    source: Path,
    to: Path,
    bases: Sequence[str],
    base_modules: Modules | None,
    max_rank: int,
    trained_on: str | None = None,
) -> None:
    """Make the folder `to` an adapter as ours are, from the two files in `source`.

    `bases` are the names of the deployment's base model; the first one is written. `trained_on`
    is what the adapter calls it, where that is another name. `base_modules` are its linear
    modules, (out, in), None where they aren't known here. The weights keep their bytes, unless
    modules differ in rank or alpha: then each one's scale is multiplied into its B in float32,
    which every release of vLLM serves alike.

    Raise LoraAssetsError, in one line, for what can't be served as it was trained.
    """
    config, shapes = _read(source)
    _require_base(config.base_model_name_or_path, bases, trained_on)
    ranks = [shape[0] for name, shape in shapes.items() if ".lora_A." in name and shape]
    refuse_features(config, shapes, max(ranks, default=config.r), max_rank, *config.others)
    faults = list(misshapen(shapes, lambda name: config.rank(_module(name)["module"])))
    faults = faults or list(_unwhole(config, lora_modules(shapes), base_modules))
    if faults := faults or list(_not_finite(source / WEIGHTS)):
        more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
        raise LoraAssetsError(
            f"The adapter does not fit: {faults[0]}{more}",
            "Register it as it was saved, over the base model that it was trained on.",
        )
    written = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": bases[0],
        "r": config.r,
        "lora_alpha": config.lora_alpha,
        "lora_dropout": 0.0,
        "bias": "none",
        "use_rslora": config.use_rslora,
        "inference_mode": True,
        "target_modules": sorted({name.rpartition(".")[2] for name in lora_modules(shapes)}),
    }
    rank = max(ranks)
    folded = _folded(config, source / WEIGHTS, rank) if config.varies else None
    to.mkdir(parents=True)
    if folded is not None:
        # A scale of 1.
        written |= {"r": rank, "lora_alpha": rank, "use_rslora": False}
        save_file(folded, to / WEIGHTS, {"format": "pt"})
    else:
        shutil.copyfile(source / WEIGHTS, to / WEIGHTS)
    (to / CONFIG).write_text(json.dumps(written, indent=2, sort_keys=True) + "\n")


def _read(source: Path) -> tuple[PeftConfig, Mapping[str, Sequence[int]]]:
    if not (source / WEIGHTS).is_file() and (source / PICKLED).is_file():
        raise LoraAssetsError(
            f"The adapter's weights are pickled ({PICKLED}), and a pickle runs what is in it",
            f"Save them as {WEIGHTS}: save_pretrained(…, safe_serialization=True).",
        )
    for name in (CONFIG, WEIGHTS):
        if not (source / name).is_file():
            raise LoraAssetsError(
                f"The adapter has no {name}", "Give the folder into which peft saved it."
            )
    refuse_oversized(source)
    try:
        content = (source / CONFIG).read_bytes()
        if (kind := PeftKind.model_validate_json(content).peft_type) != "LORA":
            raise LoraAssetsError(
                f"The adapter is a {kind} of peft's, and vLLM serves only LoRA", "Train a LoRA."
            )
        config = PeftConfig.model_validate_json(content)
        for key in {**(config.alpha_pattern or {}), **(config.rank_pattern or {})}:
            re.compile(key)
        for targets in (config.target_modules, config.exclude_modules):
            re.compile(targets if isinstance(targets, str) else "")
        shapes = tensor_shapes(source / WEIGHTS)
    except ValidationError as error:
        reason = f"{CONFIG}: {validation_line(error)}"
    except re.error as error:
        reason = f"{CONFIG}: {error.pattern!r} is no pattern ({error})"
    except SafetensorError as error:
        reason = f"{WEIGHTS}: {str(error).splitlines()[0]}"
    else:
        if shapes:
            return config, shapes
        reason = f"{WEIGHTS} holds no tensor"
    raise LoraAssetsError(
        f"The adapter is damaged: {reason}", "Save it again where it was trained."
    )


def _require_base(named: str | None, bases: Sequence[str], trained_on: str | None) -> None:
    """Refuse an adapter of another base model: known is a name, or a path that ends with it."""
    if named and trained_on and named != trained_on:
        raise LoraAssetsError(
            f"The adapter was trained on {named}, not on {trained_on}", "Correct --trained-on."
        )
    if named and trained_on:
        return
    if not (known := named or trained_on):
        raise LoraAssetsError(
            "The adapter does not say what it was trained on", f"Give --trained-on {bases[0]}."
        )
    if _tail(known) not in map(_tail, bases):
        raise LoraAssetsError(
            f"The adapter was trained on {known}, and this deployment's base model is {bases[0]}",
            f"If that is another name of it, give --trained-on {known}.",
        )


def _tail(name: str) -> str:
    """Return the last part of a model's name or path, of a hub's cache the model's own."""
    cached = re.search(r"models--([^/]+)/snapshots/", name)
    parts = cached[1].split("--") if cached else re.split(r"[/\\]", name.rstrip("/\\"))
    return parts[-1].casefold()


def _unwhole(config: PeftConfig, modules: Modules, base: Modules | None) -> Iterator[str]:
    """Yield the modules that are missing, that nobody asked for, or that the base doesn't have."""
    for name, shape in modules.items():
        if base is not None and name not in base:
            yield f"the base model has no module {name}"
        elif base is not None and base[name] != shape:
            yield f"{name} is {base[name]} in the base model and {shape} in the adapter"
        elif not config.selects(name):
            yield f"{name} is none of the target_modules"
    if config.target_modules is not None:
        # Without the base model: each layer is taken to have what the other ones have.
        for name in base or _grid(modules):
            if config.selects(name) and name not in modules:
                yield f"{name} is missing"


def _module(name: str) -> re.Match[str]:
    """Return module and side of a tensor that `refuse_features` has let pass."""
    match = MODULE.fullmatch(name)
    assert match is not None
    return match


def _grid(modules: Modules) -> Iterator[str]:
    places = [m for name in modules if (m := re.fullmatch(r"(.*?\.)(\d+)(\..*)", name))]
    for before, layer in dict.fromkeys((m[1], m[2]) for m in places):
        for after in dict.fromkeys(m[3] for m in places):
            yield f"{before}{layer}{after}"


def _not_finite(weights: Path) -> Iterator[str]:
    for name, values in _tensors(weights):
        if not np.isfinite(values).all():
            yield f"{name} holds NaN or infinity"


def _tensors(weights: Path) -> Iterator[tuple[str, NDArray[Any]]]:
    with weights.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
    content = np.memmap(weights, np.uint8, "r", offset=8 + length)
    header.pop("__metadata__", None)
    for name, tensor in sorted(header.items()):
        start, end = tensor["data_offsets"]
        values = content[start:end].view(FLOATS[tensor["dtype"]])
        if tensor["dtype"] == "BF16":
            # The upper half of a float32.
            values = (values.astype(np.uint32) << 16).view(np.float32)
        yield name, values.reshape(tensor["shape"])


def _folded(config: PeftConfig, weights: Path, rank: int) -> dict[str, NDArray[np.float32]]:
    """Return the tensors at one rank, zeros in the place of the others, B times its scale."""
    folded = {}
    for name, values in _tensors(weights):
        match = _module(name)
        is_a = match["side"] == "A"
        own = values.shape[0 if is_a else 1]
        scaled = values if is_a else values * np.float64(config.scale(match["module"], own))
        missing = (0, rank - own)
        padded = np.pad(scaled, (missing, (0, 0)) if is_a else ((0, 0), missing))
        with np.errstate(over="ignore"):
            folded[name] = padded.astype(np.float32)
        if not np.isfinite(folded[name]).all():
            raise LoraAssetsError(
                f"{name} is too large for float32 by its alpha", "Train it with a smaller alpha."
            )
    return folded
