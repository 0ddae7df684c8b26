import pytest

from lora_assets.gates.evaluation import EvalThresholds, eval_gate
from lora_assets.records.grades import EvalGrades, Scores
from lora_assets.records.verdict import Verdict
from tests.support.records import NOW


def side(
    a: int, b: int, c: int, refusals: int = 20, negatives: int = 20, ungraded: int = 0
) -> Scores:
    return Scores(
        letters={"A": a, "B": b, "C": c}, ungraded=ungraded, negatives=negatives, refusals=refusals
    )


LIVE = side(80, 10, 10)
FORWARD = side(80, 10, 10, refusals=10)
"""It answers half of what it should decline."""


def decide(
    candidate: Scores, live: Scores | None = None, unread: str = "", **thresholds: float
) -> Verdict:
    grades = EvalGrades(
        model_version=2,
        digest="c" * 64,
        live_digest="l" * 64 if live else None,
        data_version="2",
        data_digest="e" * 64,
        judge_model="judge",
        unread=unread,
        candidate=candidate,
        live=live,
        mlflow_run_id="run",
    )
    return eval_gate(grades, EvalThresholds(**thresholds), NOW)


def test_the_first_deployment_passes_at_the_absolute_limits() -> None:
    assert decide(side(70, 20, 10, refusals=18)).passed


@pytest.mark.parametrize(
    ("candidate", "live", "failure"),
    [
        (side(69, 21, 10), None, "a_rate 0.69 (must be >= 0.7)"),
        (side(70, 19, 11), None, "c_rate 0.11 (must be <= 0.1)"),
        (side(70, 20, 10, refusals=17), None, "refusal_rate 0.85 (must be >= 0.9)"),
        (side(79, 11, 10), LIVE, "a_rate vs live 0.79 (must be >= 0.8)"),
        (side(80, 9, 11), LIVE, "c_rate vs live 0.11 (must be <= 0.1)"),
        (side(80, 10, 10, refusals=19), LIVE, "refusal_rate vs live 0.95 (must be >= 1)"),
        (side(80, 10, 10, refusals=17), FORWARD, "refusal_rate 0.85 (must be >= 0.9)"),
    ],
)
def test_each_absolute_check_and_each_comparison_with_live_alone_stops_a_candidate(
    candidate: Scores, live: Scores | None, failure: str
) -> None:
    assert decide(candidate, live).failures == (failure,)


def test_against_live_the_absolute_rates_no_longer_count() -> None:
    assert decide(side(50, 20, 30), live=side(50, 20, 30)).passed


def test_one_percent_ungraded_is_borne_and_more_is_a_named_fault() -> None:
    assert decide(side(99, 0, 0, ungraded=1)).passed
    fault = "candidate: 2 of 100 answers are ungraded (2.0%, at most 1.0%)"
    assert decide(side(98, 0, 0, ungraded=2)).failures == (fault,)
    assert decide(side(98, 0, 0, ungraded=2), max_ungraded_rate=0.02).passed


def test_a_judge_that_can_not_be_read_is_blamed_with_what_it_said_and_not_the_adapter() -> None:
    verdict = decide(side(0, 0, 0, ungraded=9), unread="the last: 'I like it'")
    assert verdict.undecided
    assert "the judge judge can't be read: the last: 'I like it'" in verdict.faults
    assert decide(side(99, 0, 0, ungraded=1), unread="'I like it'").passed
    assert not decide(side(0, 0, 9)).undecided


def test_nothing_graded_or_no_negatives_never_passes() -> None:
    assert not decide(side(0, 0, 0)).passed
    assert not decide(side(100, 0, 0, refusals=0, negatives=0)).passed
    assert not decide(side(100, 0, 0), live=side(100, 0, 0, refusals=0, negatives=0)).passed


def test_the_verdict_says_whom_it_compared_with() -> None:
    assert decide(side(9, 1, 0)).compared_with is None
    assert decide(side(9, 1, 0), live=side(9, 1, 0)).compared_with == "l" * 64


@pytest.mark.parametrize("live", [None, side(70, 20, 10, refusals=0, negatives=0), LIVE])
def test_refusals_without_negatives_are_judged_only_where_the_run_says_so(
    live: Scores | None,
) -> None:
    candidate = side(80, 10, 10, refusals=0, negatives=0)
    assert not decide(candidate, live).passed
    verdict = decide(candidate, live, allow_no_negatives=True)
    assert verdict.passed
    assert [check.name for check in verdict.checks if "refusal" in check.name] == []
    assert verdict.notes == ("no negatives: refusals are not judged",)
    assert not decide(side(80, 10, 10, refusals=10), live, allow_no_negatives=True).passed
