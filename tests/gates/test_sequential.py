import random
from collections.abc import Sequence

import pytest

from lora_assets.gates.sequential import boundaries, ended, looks_at, nominal_confidence
from lora_assets.records.grades import Slice
from lora_assets.records.looks import Looks
from tests.support.records import differing


@pytest.mark.parametrize(
    ("alpha", "published"),
    [
        # Reboussin, DeMets, Kim and Lan, Controlled Clinical Trials 21 (2000) 190-207 (ld98).
        (0.025, (4.877, 3.357, 2.680, 2.290, 2.031)),
        # SeqBounds.jl 1.0, bounds([0.25, 0.5, 0.75, 1.0], 0.05).
        (0.05, (3.750, 2.540, 2.016, 1.720)),
    ],
)
def test_the_boundaries_are_the_published_ones(alpha: float, published: Sequence[float]) -> None:
    fractions = tuple((number + 1) / len(published) for number in range(len(published)))
    assert boundaries(fractions, alpha) == pytest.approx(published, abs=1e-3)


@pytest.mark.parametrize("looks", [None, Looks(of=90, at=(90,))])
def test_a_single_look_is_the_test_without_looks(looks: Looks | None) -> None:
    assert nominal_confidence(looks, 0.95) == pytest.approx(0.95, abs=1e-6)


def test_the_boundary_is_crossed_in_as_many_cases_as_stated() -> None:
    """Sums of twenty normal draws without drift; three standard errors of 10,000 are allowed."""
    rng, looks = random.Random(16), 20
    held = boundaries(tuple((number + 1) / looks for number in range(looks)), 0.05)
    crossed = 0
    for _ in range(10_000):
        total = 0.0
        for number, limit in enumerate(held, start=1):
            total += rng.gauss()
            if total / number**0.5 > limit:
                crossed += 1
                break
    assert crossed / 10_000 == pytest.approx(0.05, abs=3 * 0.0022)


@pytest.mark.parametrize(
    ("rows", "looks"), [(30, [30]), (40, [20, 40]), (2400, list(range(40, 2401, 40)))]
)
def test_a_look_has_twenty_new_rows_and_there_are_sixty_at_most(
    rows: int, looks: Sequence[int]
) -> None:
    assert looks_at(rows) == looks


def judged(rows: int, a: tuple[int, int], c: tuple[int, int] = (0, 0)) -> Slice:
    """So many rows, of which some got better and some worse."""
    none = differing(rows, 0, 0)
    ways = {"a": differing(rows, *a), "c": differing(rows, *c[::-1]), "refusals": none}
    return Slice(name="all rows", **ways)


@pytest.mark.parametrize(
    ("rows", "a", "c", "why"),
    [
        (60, (0, 0), (0, 0), None),
        (600, (10, 10), (5, 5), "passed"),
        (600, (10, 10), (5, 15), None),
        (360, (5, 50), (3, 3), "failed"),
        (360, (10, 10), (0, 40), "failed"),
        (180, (5, 25), (3, 3), None),
        (780, (30, 55), (8, 8), "futile"),
        (780, (10, 10), (15, 32), "futile"),
    ],
)
def test_judging_ends_when_it_is_decided_or_would_not_be(
    rows: int, a: tuple[int, int], c: tuple[int, int], why: str | None
) -> None:
    looks = Looks(of=1200, at=tuple(range(60, rows + 1, 60)))
    assert ended(looks, judged(rows, a, c), 0.03, 0.02, 0.95) == why
