"""Perf gate: does the candidate hold up under load, and no worse than live does?"""

from pydantic import Field, FiniteFloat

from lora_assets.records import Record, Share
from lora_assets.records.load import LoadMetrics, PerfMetrics
from lora_assets.records.verdict import Check, Verdict


class PerfThresholds(Record):
    """The specification's floors and regression factors ("Performance Workflow")."""

    max_p95_latency: FiniteFloat = Field(8.0, gt=0, description="P95 latency ceiling (seconds)")
    max_p95_ttft: FiniteFloat = Field(2.0, gt=0, description="P95 TTFT ceiling (seconds)")
    min_throughput: FiniteFloat = Field(2.0, ge=0, description="Minimum throughput (req/s)")
    min_success_rate: Share = Field(0.99, description="Minimum success rate")
    latency_regression_factor: FiniteFloat = Field(
        1.15, gt=0, description="Max latency regression vs baseline"
    )
    throughput_regression_factor: FiniteFloat = Field(
        0.85, ge=0, description="Min throughput retention vs baseline"
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
            name="throughput", measured=candidate.throughput, comparison=">", limit=t.min_throughput
        ),
        Check.at_least("success_rate", candidate.success_rate, t.min_success_rate),
    )


def _relative(
    candidate: LoadMetrics, baseline: LoadMetrics, t: PerfThresholds
) -> tuple[tuple[Check, ...], tuple[str, ...]]:
    latency, ttft = _p95(candidate)
    base_latency, base_ttft = _p95(baseline)
    if base_latency is None or base_ttft is None:
        return (), ("baseline: live answered no request, so there is nothing to compare with",)
    slowest_latency, slowest_ttft = (
        value * t.latency_regression_factor for value in (base_latency, base_ttft)
    )
    throughput = baseline.throughput * t.throughput_regression_factor
    return (
        Check.at_most("p95_latency vs baseline", latency, slowest_latency),
        Check.at_most("p95_ttft vs baseline", ttft, slowest_ttft),
        Check.at_least("throughput vs baseline", candidate.throughput, throughput),
        Check.at_least("success_rate vs baseline", candidate.success_rate, baseline.success_rate),
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
