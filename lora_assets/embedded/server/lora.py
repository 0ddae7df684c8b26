"""One adapter's weights as the decoder uses them, and the rows of a batch that use them.

A row's projection y = W x becomes y + scale * B A x. The adapters of a batch are laid side
by side: one product with all their A, zeroes where a column belongs to another row's
adapter, one product with all their B. So a mixed batch costs two products, like a plain one.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from safetensors.torch import load_file
from torch import Tensor

from lora_assets.errors import LoraAssetsError, validation_line
from lora_assets.serving import adapter_files
from lora_assets.serving.adapter_files import CONFIG, WEIGHTS

Site = Literal["qkv", "o", "gate_up", "down"]
PARTS: Mapping[Site, tuple[str, ...]] = {
    "qkv": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "o": ("self_attn.o_proj",),
    "gate_up": ("mlp.gate_proj", "mlp.up_proj"),
    "down": ("mlp.down_proj",),
}
_MODULES = {part.rpartition(".")[2]: part for fused in PARTS.values() for part in fused}
_PREFIX = "base_model.model.model.layers"
_HARMLESS = (
    *("auto_mapping", "base_model_name_or_path", "inference_mode", "lora_dropout"),
    *("megatron_core", "peft_version", "qalora_group_size", "revision", "task_type"),
    *("exclude_modules", "layers_pattern", "layers_to_transform"),
)


class AdapterMissing(LoraAssetsError):
    """The folder holds no adapter."""


class AdapterUnfit(LoraAssetsError):
    """The adapter can't be put on the base model; `cause` is worded as vLLM words it."""


class LoraSettings(BaseModel):
    """The settings of adapter_config.json that change the arithmetic of a plain LoRA.

    Other settings of peft that are not empty would change it too, and are refused.
    """

    model_config = ConfigDict(extra="allow")

    peft_type: Literal["LORA"]
    r: int = Field(ge=1)
    lora_alpha: float = Field(allow_inf_nan=False)
    use_rslora: bool = False
    bias: Literal["none"] = "none"
    init_lora_weights: bool | Literal["gaussian"] = True
    target_modules: list[str] = Field(min_length=1)

    @model_validator(mode="after")
    def _is_a_plain_lora(self) -> "LoraSettings":
        extras: Mapping[str, Any] = self.model_extra or {}
        for name, value in sorted(extras.items()):
            if value and name not in _HARMLESS:
                raise ValueError(f"{name}={value!r} is not supported")
        return self

    @property
    def scale(self) -> float:
        """Return alpha / r, or alpha / sqrt(r) for rank-stabilised LoRA (arXiv:2312.03732)."""
        return self.lora_alpha / (math.sqrt(self.r) if self.use_rslora else self.r)


@dataclass(frozen=True, eq=False)
class LoraWeights:
    """An adapter, ready: per site and layer, A of (k, in) and scaled, transposed B of (k, out).

    The projections fused at a site stand one under the other: k is the rank times how many of
    them the adapter changes. Sites that it leaves alone are missing.
    """

    folder: Path
    sites: Mapping[Site, tuple[tuple[Tensor, Tensor], ...]]


def load_lora(
    folder: Path, shapes: Mapping[str, tuple[int, int]], layers: int, max_rank: int
) -> LoraWeights:
    """Read an adapter folder for a base model whose projections have `shapes` (out, in).

    Raise AdapterMissing where a file is missing, AdapterUnfit where rank, settings, names,
    shapes or values can't be served, and LoraAssetsError for other than a safetensors adapter.
    """
    if not all((folder / name).is_file() for name in (CONFIG, WEIGHTS)):
        raise AdapterMissing(f"No adapter found for {folder}", "Give the folder of an adapter.")
    adapter_files.inspect(folder)
    settings = _settings(folder, max_rank)
    tensors = load_file(folder / WEIGHTS)
    targets = {part for name, part in _MODULES.items() if name in settings.target_modules}
    expected: dict[str, tuple[int, int]] = {}
    for part in targets:
        out_size, in_size = shapes[part]
        for layer in range(layers):
            a, b = (_key(layer, part, matrix) for matrix in "AB")
            expected |= {a: (settings.r, in_size), b: (out_size, settings.r)}
            if a not in tensors and b not in tensors:
                # A layer that training left alone (layers_to_transform), as vLLM leaves it.
                tensors |= {key: torch.zeros(expected[key]) for key in (a, b)}
    _check(settings.target_modules, tensors, expected)
    sites = {
        site: tuple(_fuse(tensors, n, fused, shapes, settings.scale) for n in range(layers))
        for site, fused in PARTS.items()
        if targets.intersection(fused)
    }
    return LoraWeights(folder, sites)


def _settings(folder: Path, max_rank: int) -> LoraSettings:
    remedy = "Train a plain LoRA adapter for this base model."
    try:
        settings = LoraSettings.model_validate(json.loads((folder / CONFIG).read_bytes()))
    except ValidationError as error:
        raise AdapterUnfit(f"{CONFIG}: {validation_line(error)}", remedy) from None
    if settings.r > max_rank:
        raise AdapterUnfit(
            f"LoRA rank {settings.r} is greater than max_lora_rank {max_rank}",
            "Start the server with a higher max_lora_rank or train a smaller rank.",
        )
    return settings


def _key(layer: int, part: str, matrix: str) -> str:
    return f"{_PREFIX}.{layer}.{part}.lora_{matrix}.weight"


def _check(
    modules: Sequence[str], tensors: Mapping[str, Tensor], expected: Mapping[str, tuple[int, int]]
) -> None:
    remedy = "Train the adapter on the base model that this server serves."
    if unknown := set(modules) - set(_MODULES):
        raise AdapterUnfit(f"No module of the base model is named {sorted(unknown)}", remedy)
    if odd := sorted(set(tensors) ^ set(expected)):
        state = "is missing" if odd[0] in expected else "has no place in the base model"
        raise AdapterUnfit(f"Adapter weight {odd[0]} {state}", remedy)
    for key, shape in expected.items():
        if tuple(tensors[key].shape) != shape:
            actual = tuple(tensors[key].shape)
            raise AdapterUnfit(f"Adapter weight {key} has shape {actual}, not {shape}", remedy)
        if not tensors[key].is_floating_point() or not bool(tensors[key].isfinite().all()):
            raise AdapterUnfit(f"Adapter weight {key} holds NaN or infinity", remedy)


def _fuse(
    tensors: Mapping[str, Tensor],
    layer: int,
    fused: Sequence[str],
    shapes: Mapping[str, tuple[int, int]],
    scale: float,
) -> tuple[Tensor, Tensor]:
    a, b = [], []
    for part in fused:
        changed = _key(layer, part, "A") in tensors
        if changed:
            a.append(tensors[_key(layer, part, "A")].float())
        up = (
            tensors[_key(layer, part, "B")].float().T
            if changed
            else torch.zeros(0, shapes[part][0])
        )
        b.append(up * scale)
    return torch.cat(a), torch.block_diag(*b)  # type: ignore[no-untyped-call]


class LoraBatch:
    """The distinct adapters of a batch, side by side: made once per set of adapters."""

    def __init__(self, adapters: Sequence[LoraWeights]) -> None:
        self.adapters = tuple(adapters)
        self.sites: dict[Site, tuple[tuple[Tensor, Tensor], ...]] = {}
        self._owners: dict[Site, Tensor] = {}
        for site in PARTS:
            users = [(i, a.sites[site]) for i, a in enumerate(self.adapters) if site in a.sites]
            if not users:
                continue
            self._owners[site] = torch.tensor([i for i, layers in users for _ in layers[0][0]])
            self.sites[site] = tuple(
                (torch.cat([a for a, _ in layer]), torch.cat([b for _, b in layer]))
                for layer in zip(*(layers for _, layers in users), strict=True)
            )

    def rows(self, users: Sequence[LoraWeights | None], counts: Sequence[int]) -> "LoraRows":
        """Return rows that use `users` (None: the base model alone), `counts` tokens each."""
        index = {id(adapter): i for i, adapter in enumerate(self.adapters)}
        choice = [-1 if user is None else index[id(user)] for user in users]
        if len(self.adapters) <= 1 and -1 not in choice:
            return LoraRows(self, {})
        rows = torch.tensor(choice).repeat_interleave(torch.tensor(counts))[:, None]
        return LoraRows(self, {site: owner != rows for site, owner in self._owners.items()})


@dataclass(frozen=True, eq=False)
class LoraRows:
    """A batch's adapters and, per site, which columns are not a token's own: (tokens, k)."""

    batch: LoraBatch
    foreign: Mapping[Site, Tensor]

    def select(self, tokens: Tensor) -> "LoraRows":
        """Return the same for some of the tokens."""
        return LoraRows(self.batch, {site: mask[tokens] for site, mask in self.foreign.items()})

    def add(self, site: Site, layer: int, x: Tensor, y: Tensor) -> Tensor:
        """Add what the adapters make of the input x (tokens, in) to y (tokens, out), in place."""
        weights = self.batch.sites.get(site)
        if weights is None:
            return y
        a, b = weights[layer]
        inner = x @ a.T
        if self.foreign:
            # Filled, not multiplied: an adapter's infinity must not reach another's rows as NaN.
            inner.masked_fill_(self.foreign[site], 0.0)
        return y.addmm_(inner, b)
