"""The parameters of a training run, and what it reports."""

import math
import sys
from collections.abc import Callable, Mapping
from typing import Literal, NamedTuple

from pydantic import Field, FiniteFloat

from lora_assets.records import AdapterRecord, Record
from lora_assets.records.base_model import NextToken

Profile = Literal["minimal", "standard", "aggressive", "high_capacity"]
ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")
_EXP_OVERFLOWS = math.log(sys.float_info.max)
ALL_PROJECTIONS = (*ATTENTION, "gate_proj", "up_proj", "down_proj")


class LoraProfile(Record):
    """The shape of an adapter: rank, scale (alpha / rank), the projections it changes."""

    rank: int
    alpha: int
    dropout: float
    target_modules: tuple[str, ...]


LORA_PROFILES: Mapping[Profile, LoraProfile] = {
    "minimal": LoraProfile(rank=4, alpha=8, dropout=0.05, target_modules=("q_proj", "v_proj")),
    "standard": LoraProfile(rank=8, alpha=16, dropout=0.05, target_modules=ATTENTION),
    "aggressive": LoraProfile(rank=16, alpha=32, dropout=0.05, target_modules=ALL_PROJECTIONS),
    "high_capacity": LoraProfile(rank=32, alpha=64, dropout=0.1, target_modules=ALL_PROJECTIONS),
}


class TrainingParameters(Record):
    """Hyperparameters of one QLoRA run; the defaults are the specification's for a 7B model."""

    lora_config: Profile = Field(
        "standard", description=f"LoRA configuration profile: {', '.join(LORA_PROFILES)}"
    )
    lora_method: Literal["lora", "rslora"] = Field(
        "lora",
        description="How alpha scales the adapter: lora (alpha / r), rslora (alpha / sqrt(r))",
    )
    learning_rate: FiniteFloat = Field(2e-4, gt=0, le=1, description="Peak learning rate")
    num_epochs: int = Field(1, ge=1, description="Training epochs")
    batch_size: int = Field(4, ge=1, description="Rows per step, over all GPUs")
    gradient_accumulation_steps: int = Field(4, ge=1, description="Steps per optimizer update")
    max_seq_length: int = Field(1024, ge=16, description="Longest row, in tokens")
    quantization: Literal["nf4", "none"] = Field(
        "nf4",
        description="How the frozen base model is held: nf4 (4 bits, QLoRA) or none (unquantised)",
    )
    warmup_ratio: FiniteFloat = Field(
        0.03, ge=0, lt=1, description="Share of the updates spent warming up"
    )
    evaluations: int = Field(4, ge=1, description="Evaluations (and checkpoints) per run")
    seed: int = Field(
        42, ge=0, le=2**32 - 1, description="Seed of initialisation, order and dropout"
    )


EMBEDDED_PARAMETERS = TrainingParameters(
    learning_rate=3e-3,
    num_epochs=2,
    batch_size=8,
    gradient_accumulation_steps=1,
    quantization="none",
    evaluations=2,
    seed=1,
)
"""Defaults for the embedded base model (2.9 M parameters, two cores). It is served unquantised,
and so small that an adapter trained on its NF4 form declines noticeably less often there."""


class LossPoint(Record):
    """One reading of a loss curve: after `step` optimizer updates."""

    step: int
    name: Literal["train_loss", "eval_loss"]
    value: float


class TrainingProgress(NamedTuple):
    """How much of a run is done: updates, tokens that are no padding, the newest training loss."""

    step: int
    steps: int
    tokens: int
    total_tokens: int
    loss: float | None


class Listeners(NamedTuple):
    """What a training calls with every loss, at its start and after each update, with a line."""

    loss: Callable[[LossPoint], None]
    progress: Callable[[TrainingProgress], None]
    note: Callable[[str], None]


class Engine(Record):
    """How a machine was used to train: what it had, and what its memory decided.

    `kernels` is the library of fused kernels, `tokens_per_pass` the most that a forward and
    backward pass took. `peak_memory_gib` is what PyTorch held on a GPU at most.
    """

    device: str
    attention: str
    kernels: str
    tokens_per_pass: int
    activations_recomputed: bool
    peak_memory_gib: float | None


class Losses(Record):
    """What the quality gate reads: measured here, or given with an adapter trained elsewhere.

    Losses are means over answer tokens (nats); perplexity is exp(eval loss). A metric
    that is not there is None, which no gate lets pass. `split_rows` are the rows of each split that
    was read, those left out among them. `base_answers` are those of the base
    model that it was measured on, to base_model.PROMPTS.
    """

    final_eval_loss: float | None
    final_perplexity: float | None
    rows_left_out: Mapping[str, tuple[int, ...]] = {}
    split_rows: Mapping[str, int] = {}
    given: bool = False
    base_answers: tuple[NextToken, ...] = ()


class RowLengths(Record):
    """How many tokens the rows of a split have that were trained or measured on."""

    median: int
    p95: int
    longest: int


class TrainingMetrics(Losses):
    """What a training run measured."""

    row_lengths: Mapping[str, RowLengths] = {}
    tokens_per_second: float
    engine: Engine | None = None
    steps: int
    best_step: int
    curve: tuple[LossPoint, ...]


class Adapter(AdapterRecord):
    """A trained adapter: what the `adapter` asset stands for, identified by its digest.

    One that was trained elsewhere has no profile, and losses alone. `data_arrived` is when its
    data version came to the bucket, `max_leak` how many leaked rows its data were allowed; None
    where an earlier release made the record.
    """

    base_model: str
    lora_config: Profile | None
    mlflow_run_id: str
    metrics: TrainingMetrics | Losses
    data_arrived: str = ""
    max_leak: int | None = None


def perplexity(loss: float) -> float:
    """Return exp(loss): infinity for an absurd loss, where math.exp would raise."""
    return math.exp(loss) if loss < _EXP_OVERFLOWS else math.inf
