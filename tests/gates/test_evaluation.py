import math
import re
from typing import Any

import pytest
from pydantic import ValidationError

from lora_assets.errors import LoraAssetsError
from lora_assets.gates.evaluation import DecisionRule, EvalThresholds, eval_gate, what_it_shows
from lora_assets.records.grades import Corrected, Differing, JudgeMeasure, OtherSplit, Scores, Slice
from lora_assets.records.looks import Looks
from lora_assets.records.verdict import Verdict
from tests.support.records import NOW, differing, eval_grades


def side(
    a: int, b: int, c: int, refusals: int = 20, negatives: int = 20, ungraded: int = 0
) -> Scores:
    return Scores(
        letters={"A": a, "B": b, "C": c}, ungraded=ungraded, negatives=negatives, refusals=refusals
    )


LIVE = side(80, 10, 10)
FORWARD = side(80, 10, 10, refusals=10)
"""It answers half of what it should decline."""


def decide(candidate: Scores, live: Scores | None = None, **given: Any) -> Verdict:
    """The verdict by what is given: fields of the thresholds, and of the grades."""
    limits = {name: given.pop(name) for name in EvalThresholds.model_fields if name in given}
    return eval_gate(eval_grades(candidate, live, **given), EvalThresholds(**limits), NOW)


def test_the_absolute_limits_are_for_the_first_deployment_alone() -> None:
    assert decide(side(70, 20, 10, refusals=18)).passed
    assert decide(side(50, 20, 30), live=side(50, 20, 30)).passed


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


@pytest.mark.parametrize(
    ("right", "wrong", "able"), [(10, 10, True), (10, 6, True), (10, 5, False)]
)
def test_a_judge_that_can_not_tell_right_from_wrong_decides_nothing(
    right: int, wrong: int, able: bool
) -> None:
    measured = JudgeMeasure(a_due=10, a_given=right, c_due=10, c_given=wrong, twice=10, alike=9)
    verdict = decide(side(10, 0, 90), measured=measured)
    assert not verdict.passed
    assert verdict.undecided != able
    said = f"the judge gave {right} of 10 right answers an A, {wrong} of 10 wrong ones a C"
    assert any(said in each for each in (verdict.notes if able else verdict.faults))
    assert decide(side(90, 5, 5), measured=measured, min_judge_accuracy=0.5).passed


@pytest.mark.parametrize(("due", "decides"), [((10, 0), False), ((0, 10), False), ((0, 0), True)])
def test_a_judge_of_whom_one_half_can_not_be_measured_decides_nothing(
    due: tuple[int, int], decides: bool
) -> None:
    given = {"a_due": due[0], "a_given": due[0], "c_due": due[1], "c_given": due[1]}
    verdict = decide(side(90, 5, 5), measured=JudgeMeasure(**given, twice=0, alike=0, labelled=1))
    assert (verdict.passed, verdict.undecided) == (decides, not decides)
    assert decides or "--judge-controls 0 goes without" in verdict.faults[0]


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


def compared(
    a: tuple[int, int] = (10, 10), c: tuple[int, int] = (5, 5), refusals: tuple[int, int] = (1, 1)
) -> tuple[Slice, ...]:
    """Slices of 1,000 rows, 200 of them negatives, from the rows that got better and worse."""
    every = Slice(
        name="all rows",
        a=differing(1000, *a),
        c=differing(1000, *c[::-1]),
        refusals=differing(200, *refusals),
    )
    none = Differing(rows=800)
    negatives = every.model_copy(update={"name": "question_type=negative"})
    return every, Slice(name="question_type=factual", a=none, c=none, refusals=none), negatives


SAME = side(880, 70, 50, refusals=194, negatives=200)


def paired(slices: tuple[Slice, ...], candidate: Scores = SAME, **thresholds: Any) -> Verdict:
    chosen = {"decision_rule": "paired", **thresholds}
    return decide(candidate, SAME, slices=slices, **chosen)


def test_an_equal_adapter_passes_the_rule_paired_and_says_what_the_other_rule_says() -> None:
    verdict = paired(compared(a=(10, 11)), side(879, 71, 50, refusals=194, negatives=200))
    assert (verdict.outcome, verdict.rule) == ("passed", "paired")
    assert [each.measure for each in verdict.paired] == ["a_rate", "c_rate", "refusal_rate"]
    said = "by the rule specification: failed; a_rate vs live 0.879 (must be >= 0.88)"
    assert verdict.notes[-1] == said


def test_the_specifications_rule_has_the_same_evidence() -> None:
    verdict = paired(compared(), decision_rule="specification")
    assert (verdict.rule, verdict.passed) == ("specification", True)
    assert verdict.paired == paired(compared()).paired
    assert verdict.notes[-1] == "by the rule paired: passed"


@pytest.mark.parametrize(
    ("slices", "outcome", "missed"),
    [
        (compared(a=(0, 80)), "failed", "a_rate vs live, lower limit"),
        (compared(c=(0, 60)), "failed", "c_rate vs live, upper limit"),
        (compared(refusals=(0, 30)), "failed", "refusal_rate vs live, lower limit"),
        (compared(a=(30, 50)), "inconclusive", "a_rate vs live, lower limit"),
        (compared(a=(30, 50), c=(0, 60)), "failed", "a_rate vs live, lower limit"),
    ],
)
def test_each_measure_alone_fails_or_leaves_the_rule_paired_undecided(
    slices: tuple[Slice, ...], outcome: str, missed: str
) -> None:
    verdict = paired(slices)
    assert (verdict.outcome, verdict.passed) == (outcome, False)
    assert verdict.failures[0].startswith(missed)


def test_a_floor_fails_even_where_the_comparison_is_undecided() -> None:
    low = side(880, 70, 50, refusals=170, negatives=200)
    assert paired(compared(a=(30, 50)), low).outcome == "failed"


def test_the_slice_in_which_most_is_lost_is_named_with_its_rows() -> None:
    lines = paired(compared(a=(1, 80))).notes
    (named,) = [line for line in lines if "most is lost" in line]
    assert named == (
        "a_rate: most is lost in question_type=negative, 80 rows worse and 1 better of 1000 "
        "(worse: 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, …)"
    )


def test_rows_that_ended_judging_early_are_held_against_the_boundary_of_their_look() -> None:
    early = Looks(of=2000, at=tuple(range(100, 1001, 100)), ended="passed")
    every = Looks(of=1000, at=tuple(range(50, 1001, 50)))
    slices = compared(a=(30, 40))
    assert paired(slices).outcome == "passed"
    for looks, confidence in ((early, 0.9957), (every, 0.967)):
        verdict = decide(SAME, SAME, slices=slices, looks=looks, decision_rule="paired")
        assert [each.confidence for each in verdict.paired] == [
            *[pytest.approx(confidence, abs=1e-4)] * 2,
            0.95,
        ]
        assert verdict.outcome == ("passed" if looks is every else "inconclusive")
        assert str(looks) in verdict.notes
    assert str(early) == "1000 of 2000 rows were judged, in 10 looks: the candidate is non-inferior"


def test_the_specification_does_not_decide_on_a_part_of_the_rows() -> None:
    early = Looks(of=2000, at=(1000,), ended="passed")
    verdict = decide(SAME, SAME, slices=compared(), looks=early)
    assert verdict.outcome == "inconclusive"
    assert verdict.faults[0].startswith("the specification wants every grade, but 1000 of 2000")
    assert decide(SAME, SAME, slices=compared(), looks=Looks(of=1000, at=(1000,))).passed


def other_split(**ways: tuple[int, int]) -> OtherSplit:
    every = compared(**ways)[0].model_copy(update={"name": "data version 1"})
    return OtherSplit(every=every, looks=Looks(of=1000, at=(1000,)))


@pytest.mark.parametrize(
    ("ways", "outcome", "missed"),
    [
        ({}, "passed", None),
        ({"a": (0, 80)}, "failed", "a_rate of data version 1 vs live, lower limit"),
        ({"c": (0, 60)}, "failed", "c_rate of data version 1 vs live, upper limit"),
        ({"refusals": (0, 30)}, "failed", "refusal_rate of data version 1 vs live, lower limit"),
        ({"a": (30, 50)}, "inconclusive", "a_rate of data version 1 vs live, lower limit"),
    ],
)
def test_what_live_knew_of_other_data_is_a_check_of_the_rule_paired_and_a_note_of_the_other(
    ways: dict[str, tuple[int, int]], outcome: str, missed: str | None
) -> None:
    given: dict[str, Any] = {"slices": compared(), "others": (other_split(**ways),)}
    verdict = decide(SAME, SAME, decision_rule="paired", **given)
    assert (verdict.outcome, len(verdict.checks)) == (outcome, 7)
    assert [each.name for each in verdict.checks if not each.passed] == ([missed] if missed else [])
    reported = decide(SAME, SAME, **given)
    assert (reported.outcome, len(reported.paired)) == ("passed", 6)
    assert any(note.startswith("a_rate of data version 1 ") for note in reported.notes)
    assert not any("most is lost" in note for note in verdict.notes)


def test_data_of_live_that_are_gone_leave_the_rule_paired_undecided() -> None:
    given: dict[str, Any] = {"slices": compared(), "lacking": ("data version 1 is gone",)}
    verdict = decide(SAME, SAME, decision_rule="paired", **given)
    assert (verdict.outcome, verdict.faults) == ("inconclusive", ("data version 1 is gone",))
    reported = decide(SAME, SAME, **given)
    assert reported.passed
    assert "data version 1 is gone" in reported.notes


def test_what_people_correct_is_a_note_and_decides_nothing() -> None:
    lost = Corrected(measure="a_rate", estimate=-0.5, error=0.01, rows=30)
    verdict = paired(compared(), corrected=(lost,))
    assert verdict.passed
    assert str(lost) in verdict.notes


def test_without_a_row_in_common_the_rule_paired_can_not_decide() -> None:
    nothing = Differing(rows=0)
    slices = (Slice(name="all rows", a=nothing, c=nothing, refusals=nothing),)
    for none in ((), slices):
        verdict = paired(none)
        assert (verdict.outcome, len(verdict.faults)) == ("inconclusive", 3)
        assert verdict.faults[0] == "a_rate: candidate and live have no row in common"


def test_a_first_deployment_is_held_against_the_floors_by_either_rule() -> None:
    verdict = decide(side(70, 20, 10, refusals=18), decision_rule="paired")
    assert verdict.passed
    assert [check.name for check in verdict.checks] == ["a_rate", "c_rate", "refusal_rate"]


@pytest.mark.parametrize("margin", ["a_margin", "c_margin", "refusal_margin"])
@pytest.mark.parametrize("value", [0, 1, math.nan, math.inf, -0.1])
def test_a_margin_of_nothing_or_everything_is_refused(margin: str, value: float) -> None:
    with pytest.raises(ValidationError):
        EvalThresholds.model_validate({margin: value})


def test_a_split_that_can_not_decide_is_refused_before_it_is_measured() -> None:
    by_pairs = DecisionRule(decision_rule="paired")
    shown = what_it_shows(1200, 200, by_pairs)
    assert shown[2] == "refusal_rate: mostly decided if at most 8.1% of 200 rows differ"
    small = "refusal_rate: 40 rows can't show a margin of 0.05, 52 are needed"
    assert what_it_shows(240, 40, DecisionRule())[2] == small
    with pytest.raises(LoraAssetsError, match=re.escape(small)):
        what_it_shows(240, 40, by_pairs)
    with pytest.raises(LoraAssetsError, match="split of data version 1 is too small"):
        what_it_shows(240, 40, by_pairs, " of data version 1")
    with pytest.raises(LoraAssetsError, match="no answerable row"):
        what_it_shows(93, 93, DecisionRule())
