"""Perf gate: does the candidate hold up under load, and no worse than live does?"""

import math
from collections.abc import Sequence

from pydantic import Field, FiniteFloat

from lora_assets.gates.paired import ComparisonRule, first
from lora_assets.gates.sequential import nominal_confidence
from lora_assets.records import Share
from lora_assets.records.load import LoadMetrics, PerfMetrics, Ratio
from lora_assets.records.looks import Looks
from lora_assets.records.verdict import Check, Rule, Verdict


class PerfRule(ComparisonRule):
    """How much slower than live a candidate may be (specification, "Performance Workflow").

    `specification` holds one number of each against the other. `paired` asks for confidence, by
    blocks of requests in alternation with live, that their ratio keeps the factor (docs/gates.md).
    """

    latency_regression_factor: FiniteFloat = Field(
        1.15, gt=0, description="Max latency regression vs baseline"
    )
    throughput_regression_factor: FiniteFloat = Field(
        0.85, ge=0, description="Min throughput retention vs baseline"
    )


class PerfThresholds(PerfRule):
    """The specification's floors, beside its regression factors."""

    max_p95_latency: FiniteFloat = Field(8.0, gt=0, description="P95 latency ceiling (seconds)")
    max_p95_ttft: FiniteFloat = Field(2.0, gt=0, description="P95 TTFT ceiling (seconds)")
    min_throughput: FiniteFloat = Field(2.0, ge=0, description="Minimum throughput (req/s)")
    min_success_rate: Share = Field(0.99, description="Minimum success rate")


def _p95(metrics: LoadMetrics) -> tuple[float | None, float | None]:
    latency = metrics.latency.p95 if metrics.latency else None
    ttft = metrics.ttft.p95 if metrics.ttft else None
    return latency, ttft


def perf_gate(metrics: PerfMetrics, thresholds: PerfThresholds, decided_at: str) -> Verdict:
    """Decide on a load test: absolute floors always, relative limits where there is a baseline.

    Where live was measured in the same test the verdict says what the other rule would say.
    """
    candidate, baseline, t = metrics.candidate, metrics.baseline, thresholds
    latency, ttft = _p95(candidate)
    faults = metrics.contradictions
    floors = (
        Check(name="p95_latency", measured=latency, comparison="<", limit=t.max_p95_latency),
        Check(name="p95_ttft", measured=ttft, comparison="<", limit=t.max_p95_ttft),
        Check(
            name="throughput",
            measured=candidate.throughput,
            comparison=">",
            limit=t.min_throughput,
        ),
        Check.at_least("success_rate", candidate.success_rate, t.min_success_rate),
    )
    if baseline is not None:
        if 0 < baseline.success_rate < t.min_success_rate:
            share = f"{baseline.success_rate:.1%}, at least {t.min_success_rate:.1%}"
            faults += (f"baseline: live itself got errors (success {share})",)
        if None in _p95(baseline):
            faults += ("baseline: live answered no request, so there is nothing to compare with",)
    unmeasured = ("live was not load-tested beside the candidate: test again by the rule paired",)
    notes = (*((str(metrics.change),) if metrics.change else ()), *metrics.drift)

    def decide(rule: Rule) -> Verdict:
        compared: Sequence[Check] = ()
        own = faults
        if rule == "paired" and metrics.looks is not None:
            compared = regressions(metrics.ratios, metrics.looks, t)
        elif rule == "paired" and metrics.live_digest is not None:
            own += unmeasured
        elif rule == "specification" and baseline is not None:
            compared = _against(candidate, baseline, t)
        return Verdict(
            gate="perf_gate",
            **metrics.identity,
            compared_with=metrics.live_digest,
            vllm_url=metrics.vllm_url,
            rule=rule,
            thresholds=thresholds.model_dump(exclude={"decision_rule"}),
            checks=(*floors, *compared),
            faults=own,
            notes=notes,
            evidence_run_id=metrics.mlflow_run_id,
            decided_at=decided_at,
        )

    rule, other = thresholds.rules
    verdict = decide(rule)
    if metrics.looks is None:
        return verdict
    return verdict.model_copy(update={"notes": (*notes, decide(other).by_its_rule)})


def drift(now: LoadMetrics, then: LoadMetrics, rule: PerfRule) -> tuple[str, ...]:
    """Return where live is no longer as fast as in a load test of its own, as lines."""
    slower = (str(each) for each in _against(now, then, rule) if not each.passed)
    return tuple(f"live itself has changed since its own load test: {each}" for each in slower)


def _against(
    candidate: LoadMetrics, baseline: LoadMetrics, thresholds: PerfRule
) -> Sequence[Check]:
    """Return the specification's comparisons; none with a baseline that answered nothing."""
    base_latency, base_ttft = _p95(baseline)
    if base_latency is None or base_ttft is None:
        return ()
    latency, ttft = _p95(candidate)
    slower, lower = thresholds.latency_regression_factor, thresholds.throughput_regression_factor
    throughput, rate = candidate.throughput, candidate.success_rate
    return (
        Check.at_most("p95_latency vs baseline", latency, base_latency * slower),
        Check.at_most("p95_ttft vs baseline", ttft, base_ttft * slower),
        Check.at_least("throughput vs baseline", throughput, baseline.throughput * lower),
        Check.at_least("success_rate vs baseline", rate, baseline.success_rate),
    )


def regressions(ratios: Sequence[Ratio], looks: Looks, rule: PerfRule) -> Sequence[Check]:
    """Return the checks that the candidate's ratios to live keep the factors, with confidence.

    Each holds the limit of the interval on the worse side, at the boundary of the last look, and
    is undecided if the other limit keeps the factor. A ratio that is missing fails.
    """
    known = {each.measure: each for each in ratios}
    confidence, blocks = nominal_confidence(looks, rule.confidence), looks.at[-1]
    checks: list[Check] = []
    slower, lower = rule.latency_regression_factor, rule.throughput_regression_factor
    for measure, factor in (("p95_latency", slower), ("p95_ttft", slower), ("throughput", lower)):
        least, most = (
            ratio_interval(known[measure], blocks, confidence) if measure in known else (None, None)
        )
        name = f"ratio of {measure} to live"
        if measure == "throughput":
            held = Check(name=f"{name}, lower limit", measured=least, comparison=">", limit=factor)
            undecided = not held.passed and most is not None and most >= factor
        else:
            held = Check(name=f"{name}, upper limit", measured=most, comparison="<", limit=factor)
            undecided = not held.passed and least is not None and least <= factor
        checks.append(held.model_copy(update={"undecided": undecided}))
    return checks


FEWEST_BLOCKS = 4
"""With fewer of them nothing is decided: their spread says too little of itself."""

_LARGEST_LOGARITHM = 700.0


def ratio_interval(ratio: Ratio, blocks: int, confidence: float) -> tuple[float, float]:
    """Return the limits of a ratio, each one-sided at `confidence`, from so many blocks.

    The error of few blocks is itself uncertain, so the quantile is that of Student's t.
    """
    if blocks < FEWEST_BLOCKS:
        return 0.0, math.inf
    t = students_t(confidence, blocks - 1)
    times = math.exp(min(t * ratio.error, _LARGEST_LOGARITHM))
    return ratio.value / times, ratio.value * times


def students_t(confidence: float, degrees: int) -> float:
    """Return the one-sided quantile (Abramowitz and Stegun 1964, 26.7.3 and 26.7.4)."""
    odd = degrees % 2

    def within(angle: float) -> float:
        term = math.cos(angle) if odd else 1.0
        total = term if degrees > 1 else 0.0
        for power in range(2 + odd, degrees - 1, 2):
            term *= math.cos(angle) ** 2 * (power - 1) / power
            total += term
        total *= math.sin(angle)
        return 2 / math.pi * (angle + total) if odd else total

    angle = first(lambda angle: within(angle) >= 2 * confidence - 1, 0.0, math.pi / 2)
    return math.tan(angle) * math.sqrt(degrees)
