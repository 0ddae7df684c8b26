"""What a run of each stage can be told: Dagster's launchpad and the command line have these fields.

They stand apart from the assets, since a command that follows a run has no time for Dagster.
"""

from collections.abc import Mapping
from typing import Any

from pydantic import Field, ValidationInfo, field_validator

from lora_assets.gates.data import DataThresholds
from lora_assets.gates.evaluation import DecisionRule
from lora_assets.gates.performance import PerfRule
from lora_assets.records import Record, Share
from lora_assets.records.served import CANDIDATE_SLOT, LIVE_SLOT
from lora_assets.records.training import EMBEDDED_PARAMETERS, TrainingParameters
from lora_assets.resources.mlflow_client import NAME as MLFLOW_NAME
from lora_assets.serving.vllm_plugin.adapters_folder import NAME as SLOT_NAME

LONGEST_REASON = 500
"""Characters that the history keeps of a reason."""

OF_LIVE, OF_NONE = "live", "none"
"""Names in the place of a data version: that of the live adapter, and no other one."""


def _override(name: str) -> Any:
    """Return a field that is None until a run sets it; its text says what stands in for it."""
    field = TrainingParameters.model_fields[name]
    default, embedded = field.default, getattr(EMBEDDED_PARAMETERS, name)
    shown = default if embedded == default else f"{default}, embedded {embedded}"
    return Field(None, description=f"{field.description}; default: {shown}")


def _experiment(default: str) -> Any:
    return Field(default, pattern=MLFLOW_NAME, description="MLflow experiment name")


def _slot(what: str, default: str) -> Any:
    """Return a parameter that names a slot; left out, it is the fleet's, usually `default`."""
    described = f"{what}; default: the fleet's ({default})"
    return Field(None, pattern=f"^{SLOT_NAME}$", description=described)


def _named(text: str) -> list[str]:
    return [*filter(None, map(str.strip, text.split(",")))]


class TrainingOptions(DataThresholds):
    """What a run overrides; what is None comes from the stack's TrainingParameters.

    The data gate's thresholds are here once more: a training reads the data anew.
    """

    lora_config: str | None = _override("lora_config")
    lora_method: str | None = _override("lora_method")
    learning_rate: float | None = _override("learning_rate")
    num_epochs: int | None = _override("num_epochs")
    batch_size: int | None = _override("batch_size")
    gradient_accumulation_steps: int | None = _override("gradient_accumulation_steps")
    max_seq_length: int | None = _override("max_seq_length")
    quantization: str | None = _override("quantization")
    warmup_ratio: float | None = _override("warmup_ratio")
    evaluations: int | None = _override("evaluations")
    seed: int | None = _override("seed")
    max_left_out: Share = Field(
        0.0,
        description="Largest share of val, eval or a split's negatives longer than max-seq-length",
    )
    fresh: bool = Field(
        False, description="Train anew even if the same was trained on this data before"
    )
    mlflow_experiment: str = _experiment("vllm-lora-training")

    def overrides(self) -> Mapping[str, Any]:
        """Return the training parameters that this run sets."""
        return self.model_dump(exclude_none=True, include={*TrainingParameters.model_fields})


class DeployOptions(Record):
    """Which adapter goes where."""

    adapter_source: str | None = Field(
        None,
        description="alias:<name> or version:<number>; default: alias:candidate from the command "
        "line, in Dagster this partition's gate_result",
    )
    slot_name: str | None = _slot("Target adapter slot on vLLM", CANDIDATE_SLOT)


class ComparisonOptions(Record):
    """Which slots the two adapters are in."""

    candidate_adapter: str | None = _slot("Candidate adapter slot name", CANDIDATE_SLOT)
    live_adapter: str | None = _slot("Live adapter slot name", LIVE_SLOT)


class EvalOptions(DecisionRule, ComparisonOptions):
    """Whose answers are graded, and how they are gathered.

    The decision rule is here once more: what it can't decide is refused before it is measured.
    """

    max_concurrent: int = Field(15, ge=1, description="Concurrent requests per step")
    fresh: bool = Field(False, description="Ask and grade anew what was asked and graded before")
    judge_controls: int = Field(
        30,
        ge=0,
        description="Requests that measure the judge: a third each right answers, wrong ones, and "
        "answers that are graded twice; 0: it is not measured",
    )
    sequential: bool = Field(
        True,
        description="Rule paired: judge in a random order, and no longer than the rule needs to "
        "decide; false: every row",
    )
    slices: str = Field(
        "question_type", description="Metadata keys to compare by, separated by commas"
    )
    also_evaluate: str = Field(
        OF_LIVE,
        description="Data versions, separated by commas, whose eval splits the candidate must "
        "answer no worse than live, too; live: that of the live adapter; none: no other",
    )
    mlflow_experiment: str = _experiment("vllm-lora-evaluation")

    @property
    def slice_keys(self) -> list[str]:
        """Return the keys in `slices`."""
        return _named(self.slices)

    @property
    def other_versions(self) -> list[str]:
        """Return the data versions in `also_evaluate`; OF_LIVE stands for that of live."""
        return [name for name in _named(self.also_evaluate) if name != OF_NONE]

    @field_validator("also_evaluate")
    @classmethod
    def _names_some(cls, value: str) -> str:
        if not _named(value):
            raise ValueError(f"name data versions, {OF_LIVE!r} or {OF_NONE!r}")
        return value


class PerfOptions(PerfRule, ComparisonOptions):
    """How the load test is run, and what it is compared with.

    The decision rule is here once more: what it leaves undecided is measured again.
    """

    concurrency: int = Field(10, ge=1, description="Concurrent requests")
    max_tokens: int = Field(256, ge=1, description="Max tokens per request")
    max_samples: int = Field(0, ge=0, description="Max samples (0 = all)")
    passes: int = Field(
        1,
        ge=1,
        description="How often each prompt is sent to each adapter; more of them steady the "
        "percentiles on a noisy machine, but prefix caches know the prompts by then",
    )
    max_blocks: int = Field(
        60,
        ge=2,
        description="Rule paired: most blocks of requests, half of them in the other order; the "
        "prompts are sent again until it can decide",
    )
    measure_baseline: bool | None = Field(
        None,
        description="Load-test live in the same run, alternately, instead of taking the stored "
        "metrics of its own last test; default: if the fleet shares its machine with "
        "trainings (the embedded stack) or the rule is paired; done anyway where live did not "
        "pass that test",
    )
    mlflow_experiment: str = _experiment("vllm-lora-performance")

    @field_validator("measure_baseline")
    @classmethod
    def _is_measured_if_paired(cls, value: bool | None, info: ValidationInfo) -> bool | None:
        if value is False and info.data.get("decision_rule") == "paired":
            raise ValueError("the rule paired takes no stored baseline")
        return value


class AgeOptions(Record):
    """Whether live may go back to older data."""

    allow_older: bool = Field(
        False, description="Let an older data version replace a newer live one"
    )


class PromoteOptions(AgeOptions):
    """Which adapter takes the live traffic."""

    source_alias: str = Field("staged", description="MLflow alias to promote; previous = rollback")
    slot_name: str | None = _slot("Live adapter slot on vLLM", LIVE_SLOT)


class RollbackOptions(Record):
    """Where to go back to."""

    to: int | None = Field(
        None,
        ge=1,
        description="Model version to go back to, also one that was rolled back; "
        "default: the one that was live before",
    )
    reason: str = Field(
        "",
        max_length=LONGEST_REASON,
        pattern=r"^[^\x00-\x1f\x7f-\x9f]*$",
        description="Why, for the history: one line",
    )
    slot_name: str | None = _slot("Live adapter slot on vLLM", LIVE_SLOT)
