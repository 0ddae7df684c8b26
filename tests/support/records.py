"""Records as a run would leave them, for what is decided on them."""

from collections.abc import Mapping
from typing import Any

from lora_assets.lifecycle import GATES
from lora_assets.records import Record
from lora_assets.records.grades import Answer, Differing, EvalGrades, Grade, Letter, Scores, Side
from lora_assets.records.load import LoadMetrics, Percentiles, PerfMetrics
from lora_assets.records.model_version import ModelVersion
from lora_assets.records.training import Adapter, TrainingMetrics
from lora_assets.records.verdict import Check, GateName, Verdict

NOW = "2026-01-01T00:00:00+00:00"


def model_version(
    number: int = 1, data_version: str = "1", digest: str = "c" * 64, model: str = "model"
) -> ModelVersion:
    return ModelVersion(
        model=model,
        version=number,
        digest=digest,
        data_version=data_version,
        data_digest="e" * 64,
        run_id="run",
    )


def trained_adapter(
    digest: str = "d" * 64,
    data_version: str = "1",
    base_model: str = "base",
    mlflow_run_id: str = "run",
    loss: float | None = 0.1,
    perplexity: float | None = 1.1,
) -> Adapter:
    return Adapter(
        digest=digest,
        data_version=data_version,
        data_digest="e" * 64,
        base_model=base_model,
        lora_config="standard",
        mlflow_run_id=mlflow_run_id,
        metrics=TrainingMetrics(
            final_eval_loss=loss,
            final_perplexity=perplexity,
            tokens_per_second=1.0,
            steps=1,
            best_step=1,
            rows_left_out={},
            curve=(),
        ),
    )


def load_metrics(
    latency: float | None = 4.0, ttft: float | None = 0.5, throughput: float = 4, success: float = 1
) -> LoadMetrics:
    def flat(value: float | None) -> Percentiles | None:
        return None if value is None else Percentiles(p50=value, p95=value, p99=value)

    return LoadMetrics(
        requests=100,
        failures=0,
        duration=25.0,
        latency=flat(latency),
        ttft=flat(ttft),
        throughput=throughput,
        success_rate=success,
    )


def perf_metrics(
    candidate: LoadMetrics, baseline: LoadMetrics | None = None, **others: Any
) -> PerfMetrics:
    known = {
        "candidate": candidate,
        "baseline": baseline,
        "baseline_source": "measured" if baseline else "none",
        "server": (),
        "contradictions": (),
    }
    return PerfMetrics.model_validate(_measurement(baseline) | known | others)


def eval_grades(candidate: Scores, live: Scores | None = None, **others: Any) -> EvalGrades:
    known = {"candidate": candidate, "live": live, "judge_model": "judge"}
    return EvalGrades.model_validate(_measurement(live) | known | others)


def _measurement(live: Record | None) -> dict[str, Any]:
    """What every measurement of the candidate names."""
    return {
        **model_version(2, "2").identity,
        "model_version": 2,
        "live_digest": "l" * 64 if live else None,
        "mlflow_run_id": "run",
    }


def passed_verdict(
    gate: GateName, version: ModelVersion, live: ModelVersion | None, **changes: object
) -> Verdict:
    passed = Verdict(
        gate=gate,
        **version.identity,
        compared_with=live.digest if live and GATES[gate].compares_with_live else None,
        checks=(Check.at_least("number", 1.0, 1.0),),
        decided_at=NOW,
    )
    return passed.model_copy(update=changes)


LETTERS: Mapping[str, Letter | None] = {"A": "A", "B": "B", "C": "C", "-": None}


def grades(side: Side, letters: str) -> list[Grade]:
    """A grade for each row; a dash is an ungraded one."""
    numbered = enumerate(letters)
    return [Grade(row=row, side=side, letter=LETTERS[each], reason="") for row, each in numbered]


def answers(*texts: str) -> list[Answer]:
    return [Answer(row=row, text=text, latency=0.1) for row, text in enumerate(texts)]


def differing(rows: int, better: int, worse: int) -> Differing:
    """So many rows, of which some got better and some worse."""
    ways = (tuple(range(better)), tuple(range(better, better + worse)))
    return Differing(rows=rows, only_candidate=ways[0], only_live=ways[1])
