import math
from typing import Any

import pytest

from lora_assets.gates.performance import (
    PerfRule,
    PerfThresholds,
    drift,
    perf_gate,
    ratio_interval,
    students_t,
)
from lora_assets.records.load import LatencyChange, LoadMetrics, Ratio
from lora_assets.records.looks import Looks
from lora_assets.records.verdict import Verdict
from tests.support.records import NOW, perf_metrics
from tests.support.records import load_metrics as load


def decide(
    candidate: LoadMetrics,
    baseline: LoadMetrics | None = None,
    contradictions: tuple[str, ...] = (),
    **thresholds: Any,
) -> Verdict:
    metrics = perf_metrics(candidate, baseline, contradictions=contradictions)
    return perf_gate(metrics, PerfThresholds(**thresholds), NOW)


@pytest.mark.parametrize(
    ("candidate", "baseline", "failure"),
    [
        (load(latency=8.0), None, "p95_latency 8 (must be < 8)"),
        (load(ttft=2.0), None, "p95_ttft 2 (must be < 2)"),
        (load(throughput=2.0), None, "throughput 2 (must be > 2)"),
        (load(success=0.989), None, "success_rate 0.989 (must be >= 0.99)"),
        (load(latency=4.61), load(), "p95_latency vs baseline 4.61 (must be <= 4.6)"),
        (load(ttft=0.58), load(), "p95_ttft vs baseline 0.58 (must be <= 0.575)"),
        (load(throughput=3.39), load(), "throughput vs baseline 3.39 (must be >= 3.4)"),
        (load(success=0.995), load(), "success_rate vs baseline 0.995 (must be >= 1)"),
    ],
)
def test_each_floor_and_each_regression_alone_stops_and_strict_ones_are_strict(
    candidate: LoadMetrics, baseline: LoadMetrics | None, failure: str
) -> None:
    assert decide(candidate, baseline).failures == (failure,)


def test_a_candidate_at_the_regression_limits_passes_and_they_are_parameters() -> None:
    assert decide(load(4.6, 0.575, 3.4), load(4.0, 0.5, 4.0)).passed
    assert decide(load(latency=5.9), load(), latency_regression_factor=1.5).passed


@pytest.mark.parametrize("sides", [[load(None, None)], [load(), load(None, None)]])
def test_no_successful_request_is_a_missing_number_and_never_a_pass(sides: Any) -> None:
    assert not decide(*sides).passed


def test_a_test_that_its_server_denies_or_in_which_live_got_errors_blames_no_candidate() -> None:
    contradictions = ("ttft: the server says otherwise",)
    assert decide(load(), contradictions=contradictions).failures == contradictions
    verdict = decide(load(success=0.95), load(success=0.98))
    assert verdict.undecided
    assert "live itself got errors (success 98.0%, at least 99.0%)" in verdict.faults[0]
    assert decide(load(), load(success=0.995)).passed


def by_blocks(
    latency: float = 1.0, ttft: float = 1.0, throughput: float = 1.0, error: float = 0.02
) -> dict[str, Any]:
    """Ratios to live from 60 blocks, all of which were looked at once."""
    values = {"p95_latency": latency, "p95_ttft": ttft, "throughput": throughput}
    ratios = [
        Ratio.model_validate({"measure": measure, "value": value, "error": error})
        for measure, value in values.items()
    ]
    return {"ratios": ratios, "looks": Looks(of=60, at=(60,))}


def paired(measured: dict[str, Any], rule: str = "paired") -> Verdict:
    sides = {"candidate": load(), "baseline": load(), **measured}
    metrics = perf_metrics(**sides)
    return perf_gate(metrics, PerfThresholds(decision_rule=rule), NOW)


@pytest.mark.parametrize(
    ("measured", "outcome", "missed"),
    [
        (by_blocks(), "passed", ()),
        (by_blocks(latency=1.1), "passed", ()),
        (by_blocks(latency=1.13), "inconclusive", ("ratio of p95_latency to live, upper limit",)),
        (by_blocks(latency=1.2), "failed", ("ratio of p95_latency to live, upper limit",)),
        (by_blocks(ttft=1.13), "inconclusive", ("ratio of p95_ttft to live, upper limit",)),
        (by_blocks(ttft=1.2), "failed", ("ratio of p95_ttft to live, upper limit",)),
        (by_blocks(throughput=0.86), "inconclusive", ("ratio of throughput to live, lower limit",)),
        (by_blocks(throughput=0.8), "failed", ("ratio of throughput to live, lower limit",)),
        (by_blocks(latency=1.13, error=0.001), "passed", ()),
    ],
)
def test_by_the_rule_paired_a_factor_must_be_kept_with_confidence(
    measured: dict[str, Any], outcome: str, missed: tuple[str, ...]
) -> None:
    verdict = paired(measured)
    assert (verdict.outcome, verdict.rule) == (outcome, "paired")
    assert tuple(each.name for each in verdict.checks if not each.passed) == missed


def test_a_look_before_the_last_asks_for_more() -> None:
    early = {**by_blocks(latency=1.1), "looks": Looks(of=60, at=(30,))}
    assert paired(early).outcome == "inconclusive"
    assert paired({**early, "looks": Looks(of=60, at=(30, 60))}).outcome == "passed"


def test_the_other_rule_is_said_whichever_decides() -> None:
    slow = {**by_blocks(latency=1.2), "candidate": load(latency=4.8)}
    failure = "p95_latency vs baseline 4.8 (must be <= 4.6)"
    assert paired(slow).notes[-1] == f"by the rule specification: failed; {failure}"
    verdict = paired(slow, "specification")
    assert verdict.failures == (failure,)
    assert verdict.notes[-1].startswith("by the rule paired: failed; ratio of p95_latency to live")


def test_a_live_that_was_not_measured_in_the_same_test_leaves_the_rule_paired_undecided() -> None:
    verdict = paired({})
    assert (verdict.outcome, len(verdict.faults)) == ("inconclusive", 1)
    assert paired({"live_digest": None, "baseline": None}).passed


def test_a_candidate_that_answered_no_request_of_a_block_fails() -> None:
    verdict = paired({"ratios": [], "looks": Looks(of=60, at=(60,)), "candidate": load(None, None)})
    assert verdict.outcome == "failed"
    assert "ratio of p95_ttft to live, upper limit missing (must be < 1.15)" in verdict.failures


def test_the_quantiles_of_students_t_are_the_published_ones() -> None:
    """Abramowitz and Stegun, table 26.10."""
    published = {(1, 0.95): 6.314, (2, 0.95): 2.920, (3, 0.995): 5.841, (4, 0.9995): 8.610}
    for (degrees, confidence), quantile in published.items():
        assert students_t(confidence, degrees) == pytest.approx(quantile, abs=5e-4)


@pytest.mark.parametrize(
    ("blocks", "limits"), [(3, (0, math.inf)), (4, (0.9767, 1.0238)), (60, (0.9834, 1.0168))]
)
def test_few_blocks_have_a_wider_interval_and_fewer_than_four_say_nothing(
    blocks: int, limits: tuple[float, float]
) -> None:
    ratio = Ratio(measure="throughput", value=1.0, error=0.01)
    assert ratio_interval(ratio, blocks, 0.95) == pytest.approx(limits, abs=1e-4)
    few = {**by_blocks(error=1e-6), "looks": Looks(of=blocks, at=(blocks,))}
    assert paired(few).outcome == ("inconclusive" if blocks < 4 else "passed")


def test_why_it_is_slower_and_where_live_itself_is_stand_in_the_notes() -> None:
    change = LatencyChange(first_token=0.02, tokens=0.5, speed=-0.01)
    lines = drift(load(latency=5.0), load(), PerfRule())
    assert lines == (
        "live itself has changed since its own load test: "
        "p95_latency vs baseline 5 (must be <= 4.6)",
    )
    assert paired({**by_blocks(), "change": change, "drift": lines}).notes[:2] == (
        "mean latency +0.510 s against live: first token +0.020, more tokens +0.500, "
        "slower tokens -0.010",
        *lines,
    )
