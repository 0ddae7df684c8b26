import random

import pytest

from lora_assets.gates.paired import (
    check,
    most_differing,
    paired_evidence,
    rows_needed,
    score_interval,
)
from lora_assets.records.verdict import PairedEvidence
from tests.support.records import differing


def evidence(better: int, worse: int, rows: int, margin: float = 0.03) -> PairedEvidence:
    return paired_evidence("a_rate", differing(rows, better, worse), margin, 0.95)


@pytest.mark.parametrize(
    ("better", "worse", "rows", "confidence", "expected"),
    [
        # Tango 1998, section 6.1: soft contact lenses; its upper limit is not printed.
        (0, 1, 44, 0.95, (-0.096, None)),
        # Bentur et al. 2009, in Fagerland, Lydersen and Laake's book on contingency tables.
        (1, 7, 21, 0.975, (-0.517, -0.026)),
        # PropCIs 0.3, scoreci.mp(25, 28, 618, 0.90).
        (28, 25, 618, 0.95, (-0.0148, 0.0247)),
    ],
)
def test_the_interval_is_that_of_published_examples(
    better: int, worse: int, rows: int, confidence: float, expected: tuple[float, float | None]
) -> None:
    for limit, published in zip(
        score_interval(better, worse, rows, confidence), expected, strict=True
    ):
        assert published is None or limit == pytest.approx(published, abs=5e-4)


@pytest.mark.parametrize("rows", [1, 50, 1000])
def test_equal_answers_leave_an_interval_around_nothing(rows: int) -> None:
    lower, upper = score_interval(0, 0, rows, 0.95)
    assert lower == -upper
    assert upper == pytest.approx(1.6449**2 / (rows + 1.6449**2), abs=1e-4)
    assert (upper < 0.03) == (rows >= rows_needed(0.03, 0.95))


def test_answers_that_all_differ_one_way_end_at_one() -> None:
    assert score_interval(5, 0, 5, 0.95)[1] == 1
    assert score_interval(0, 5, 5, 0.95)[0] == -1


def test_no_worse_worse_and_undecided_are_told_apart() -> None:
    assert evidence(20, 20, 1000).state == "non-inferior"
    assert evidence(20, 120, 1000).state == "inferior"
    undecided = evidence(20, 30, 500)
    assert undecided.state == "undecided"
    assert check(undecided).undecided
    more = undecided.more_rows
    assert more is not None
    times = (500 + more) / 500
    assert evidence(round(20 * times), round(30 * times), 500 + more).state == "non-inferior"
    assert str(undecided) == (
        "a_rate -0.020 against live [-0.044, +0.003], margin 0.03, "
        f"50 of 500 rows differ: undecided ({more} more rows would decide)"
    )


def test_where_the_difference_is_the_margin_no_number_of_rows_decides() -> None:
    assert evidence(20, 50, 1000).more_rows is None


def test_of_a_c_rate_more_is_worse() -> None:
    rows = differing(1000, 60, 0)
    held = check(paired_evidence("c_rate", rows, 0.02, 0.95, more_is_worse=True))
    assert (held.name, held.comparison) == ("c_rate vs live, upper limit", "<")
    assert (held.limit, held.passed, held.undecided) == (0.02, False, False)


@pytest.mark.parametrize(("rows", "share"), [(200, 0.06), (200, 0.3), (1000, 0.1)])
def test_what_is_worse_by_the_margin_passes_in_five_percent(rows: int, share: float) -> None:
    """Three standard errors of 2,000 draws are allowed."""
    rng, margin, passed = random.Random(7), 0.05, 0
    for _ in range(2000):
        draws = [rng.random() for _ in range(rows)]
        worse = sum(draw < (share + margin) / 2 for draw in draws)
        better = sum(draw > 1 - (share - margin) / 2 for draw in draws)
        passed += score_interval(better, worse, rows, 0.95)[0] > -margin
    assert passed / 2000 < 0.06 + 0.015


def test_a_split_says_which_share_may_differ() -> None:
    assert most_differing(1000, 0.03, 0.95) == pytest.approx(0.1456, abs=1e-4)
    assert most_differing(10, 0.9, 0.95) == 1.0
