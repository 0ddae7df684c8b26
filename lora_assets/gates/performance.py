"""Perf gate: does the candidate hold up under load, and no worse than live does?"""

from pydantic import Field

from lora_assets.records import Record
from lora_assets.records.load import LoadMetrics, PerfMetrics
from lora_assets.records.verdict import Check, Verdict


class PerfThresholds(Record):
    """The specification's floors and regression factors ("Performance Workflow")."""

    max_p95_latency: float = Field(
        8.0, gt=0, allow_inf_nan=False, description="P95 latency ceiling (seconds)"
    )
    max_p95_ttft: float = Field(
        2.0, gt=0, allow_inf_nan=False, description="P95 TTFT ceiling (seconds)"
    )
    min_throughput: float = Field(
        2.0, ge=0, allow_inf_nan=False, description="Minimum throughput (req/s)"
    )
    min_success_rate: float = Field(
        0.99, ge=0, le=1, allow_inf_nan=False, description="Minimum success rate"
    )
    latency_regression_factor: float = Field(
        1.15, gt=0, allow_inf_nan=False, description="Max latency regression vs baseline"
    )
    throughput_regression_factor: float = Field(
        0.85, ge=0, allow_inf_nan=False, description="Min throughput retention vs baseline"
    )


def _p95(metrics: LoadMetrics) -> tuple[float | None, float | None]:
    latency = metrics.latency.p95 if metrics.latency else None
    ttft = metrics.ttft.p95 if metrics.ttft else None
    return latency, ttft


def _floors(candidate: LoadMetrics, t: PerfThresholds) -> tuple[Check, ...]:
    latency, ttft = _p95(candidate)
    return (
        Check(name="p95_latency", measured=latency, comparison="<", limit=t.max_p95_latency),
        Check(name="p95_ttft", measured=ttft, comparison="<", limit=t.max_p95_ttft),
        Check(
            name="throughput",
            measured=candidate.throughput,
            comparison=">",
            limit=t.min_throughput,
        ),
        Check(
            name="success_rate",
            measured=candidate.success_rate,
            comparison=">=",
            limit=t.min_success_rate,
        ),
    )


def _relative(
    candidate: LoadMetrics, baseline: LoadMetrics, t: PerfThresholds
) -> tuple[tuple[Check, ...], tuple[str, ...]]:
    latency, ttft = _p95(candidate)
    base_latency, base_ttft = _p95(baseline)
    if base_latency is None or base_ttft is None:
        return (), ("baseline: live answered no request, so there is nothing to compare with",)
    return (
        Check(
            name="p95_latency vs baseline",
            measured=latency,
            comparison="<=",
            limit=base_latency * t.latency_regression_factor,
        ),
        Check(
            name="p95_ttft vs baseline",
            measured=ttft,
            comparison="<=",
            limit=base_ttft * t.latency_regression_factor,
        ),
        Check(
            name="throughput vs baseline",
            measured=candidate.throughput,
            comparison=">=",
            limit=baseline.throughput * t.throughput_regression_factor,
        ),
        Check(
            name="success_rate vs baseline",
            measured=candidate.success_rate,
            comparison=">=",
            limit=baseline.success_rate,
        ),
    ), ()


def perf_gate(metrics: PerfMetrics, thresholds: PerfThresholds, decided_at: str) -> Verdict:
    """Decide on a load test: absolute floors always, relative limits where there is a baseline."""
    checks = _floors(metrics.candidate, thresholds)
    faults = metrics.contradictions
    if metrics.baseline is not None:
        relative, missing = _relative(metrics.candidate, metrics.baseline, thresholds)
        checks += relative
        faults += missing
    return Verdict(
        gate="perf_gate",
        digest=metrics.digest,
        compared_with=metrics.live_digest,
        data_version=metrics.data_version,
        data_digest=metrics.data_digest,
        thresholds=thresholds.model_dump(),
        checks=checks,
        faults=faults,
        evidence_run_id=metrics.mlflow_run_id,
        decided_at=decided_at,
    )
