"""peft's adapter_config.json, as far as it says how an adapter was trained."""

import json
import math
import re
from collections.abc import Mapping, Sequence
from typing import Annotated, TypeVar

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, PositiveInt

from lora_assets.serving.adapter_files import LoraFeatures

_Value = TypeVar("_Value", int, float)
Alpha = Annotated[FiniteFloat, Field(gt=0, le=1e6)]

_HARMLESS = (
    *("peft_type", "auto_mapping", "inference_mode", "lora_dropout", "megatron_config"),
    *("megatron_core", "peft_version", "qalora_group_size", "revision", "layers_pattern"),
    *("ensure_weight_tying", "eva_config", "corda_config", "loftq_config", "lora_ga_config"),
    "runtime_config",
)
"""What peft's configuration may say besides, since it changes no answer of a trained adapter."""


class PeftKind(BaseModel):
    """What peft calls the method; a LoRA's configuration alone is a PeftConfig."""

    peft_type: str


class PeftConfig(LoraFeatures):
    """The configuration of a LoRA."""

    model_config = ConfigDict(extra="allow")

    task_type: str | None = None
    base_model_name_or_path: str | None = None
    r: PositiveInt
    lora_alpha: Alpha
    use_rslora: bool = False
    rank_pattern: dict[str, PositiveInt] | None = None
    alpha_pattern: dict[str, Alpha] | None = None
    target_modules: list[str] | str | None = None
    exclude_modules: list[str] | str | None = None
    layers_to_transform: list[int] | int | None = None
    fan_in_fan_out: bool = False

    @property
    def others(self) -> Sequence[str]:
        """Return what else vLLM doesn't do, or may not do: it passes over what it doesn't know."""
        extras = self.model_extra or {}
        found = [
            f"{name}={json.dumps(value)[:60]}"
            for name, value in sorted(extras.items())
            if value and name not in _HARMLESS
        ]
        if self.fan_in_fan_out:
            found.append("transposed weights (fan_in_fan_out)")
        if self.task_type not in (None, "CAUSAL_LM"):
            found.append(f"task type {self.task_type}")
        return found

    @property
    def varies(self) -> bool:
        """Return whether its modules may differ in rank or alpha."""
        return bool(self.rank_pattern or self.alpha_pattern)

    def scale(self, module: str, rank: int) -> float:
        """Return alpha / rank, or alpha / sqrt(rank) for rank-stabilised LoRA (arXiv:2312.03732).

        A key of a pattern stands for the modules that peft takes it for.
        """
        alpha = _matching(self.alpha_pattern, module, self.lora_alpha)
        return alpha / (math.sqrt(rank) if self.use_rslora else rank)

    def rank(self, module: str) -> int:
        """Return the rank that a module has by this configuration."""
        return _matching(self.rank_pattern, module, self.r)

    def selects(self, module: str) -> bool:
        """Return whether peft puts a LoRA on a module, by these targets."""
        if self.exclude_modules and _is_one_of(module, self.exclude_modules):
            return False
        if self.target_modules is None or self.target_modules == "all-linear":
            return True
        layers = self.layers_to_transform
        if isinstance(self.target_modules, list) and layers not in (None, []):
            layer = re.search(r"\.(\d+)\.", module)
            chosen = layers if isinstance(layers, list) else [layers]
            if layer is None or int(layer[1]) not in chosen:
                return False
        return _is_one_of(module, self.target_modules)


def _matching(patterns: Mapping[str, _Value] | None, module: str, otherwise: _Value) -> _Value:
    found = (v for key, v in (patterns or {}).items() if re.match(rf"(.*\.)?({key})$", module))
    return next(found, otherwise)


def _is_one_of(module: str, targets: Sequence[str] | str) -> bool:
    if isinstance(targets, str):
        return re.fullmatch(targets, module) is not None
    return any(f".{module}".endswith(f".{target}") for target in targets)
