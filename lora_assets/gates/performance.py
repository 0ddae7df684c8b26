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


def perf_gate(metrics: PerfMetrics, thresholds: PerfThresholds, decided_at: str) -> Verdict:
    """Decide on a load test: absolute floors always, relative limits where there is a baseline."""
    candidate, baseline, t = metrics.candidate, metrics.baseline, thresholds
    latency, ttft = _p95(candidate)
    throughput, success_rate = candidate.throughput, candidate.success_rate
    faults = metrics.contradictions
    checks: tuple[Check, ...] = (
        Check(name="p95_latency", measured=latency, comparison="<", limit=t.max_p95_latency),
        Check(name="p95_ttft", measured=ttft, comparison="<", limit=t.max_p95_ttft),
        Check(name="throughput", measured=throughput, comparison=">", limit=t.min_throughput),
        Check.at_least("success_rate", success_rate, t.min_success_rate),
    )
    if baseline is not None:
        base_latency, base_ttft = _p95(baseline)
        if 0 < baseline.success_rate < t.min_success_rate:
            share = f"{baseline.success_rate:.1%}, at least {t.min_success_rate:.1%}"
            faults += (f"baseline: live itself got errors (success {share})",)
        if base_latency is None or base_ttft is None:
            faults += ("baseline: live answered no request, so there is nothing to compare with",)
        else:
            slower, lower = t.latency_regression_factor, t.throughput_regression_factor
            checks += (
                Check.at_most("p95_latency vs baseline", latency, base_latency * slower),
                Check.at_most("p95_ttft vs baseline", ttft, base_ttft * slower),
                Check.at_least("throughput vs baseline", throughput, baseline.throughput * lower),
                Check.at_least("success_rate vs baseline", success_rate, baseline.success_rate),
            )
    return Verdict(
        gate="perf_gate",
        digest=metrics.digest,
        compared_with=metrics.live_digest,
        data_version=metrics.data_version,
        data_digest=metrics.data_digest,
        base=metrics.base,
        thresholds=thresholds.model_dump(),
        checks=checks,
        faults=faults,
        evidence_run_id=metrics.mlflow_run_id,
        decided_at=decided_at,
    )
