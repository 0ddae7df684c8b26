import pytest

from lora_assets.gates.performance import PerfThresholds, perf_gate
from lora_assets.records.load import LoadMetrics
from lora_assets.records.verdict import Verdict
from tests.support.records import NOW, perf_metrics
from tests.support.records import load_metrics as load


def decide(
    candidate: LoadMetrics,
    baseline: LoadMetrics | None = None,
    contradictions: tuple[str, ...] = (),
    **thresholds: float,
) -> Verdict:
    metrics = perf_metrics(candidate, baseline, contradictions=contradictions)
    return perf_gate(metrics, PerfThresholds(**thresholds), NOW)


def test_without_a_baseline_the_four_floors_decide() -> None:
    verdict = decide(load())
    assert verdict.passed
    names = [check.name for check in verdict.checks]
    assert names == ["p95_latency", "p95_ttft", "throughput", "success_rate"]


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


def test_a_candidate_at_the_regression_limits_passes() -> None:
    assert decide(load(4.6, 0.575, 3.4), load(4.0, 0.5, 4.0)).passed


def test_no_successful_request_is_a_missing_number_and_never_a_pass() -> None:
    assert not decide(load(latency=None, ttft=None)).passed
    assert not decide(load(), load(latency=None, ttft=None)).passed


def test_a_server_that_denies_the_clients_numbers_fails_the_gate_by_name() -> None:
    contradictions = ("ttft: the server says otherwise",)
    assert decide(load(), contradictions=contradictions).failures == contradictions


def test_a_test_in_which_live_itself_got_errors_blames_no_candidate() -> None:
    verdict = decide(load(success=0.95), load(success=0.98))
    assert verdict.undecided
    assert "live itself got errors (success 98.0%, at least 99.0%)" in verdict.faults[0]
    assert decide(load(), load(success=0.995)).passed


def test_factors_are_parameters_of_the_run() -> None:
    assert decide(load(latency=5.9), load(), latency_regression_factor=1.5).passed
