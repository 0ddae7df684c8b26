"""Group-sequential judging: when the rows that are judged are enough, at the stated error."""

import math
from collections.abc import Sequence
from functools import cache, partial
from statistics import NormalDist
from typing import TYPE_CHECKING

from lora_assets.gates.paired import first, score
from lora_assets.records.grades import Slice
from lora_assets.records.looks import Looks

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

MOST_LOOKS, FEWEST_ROWS = 60, 20
"""How often the rows are looked at, and how many of them are new at a look."""

LITTLE_CHANCE = 0.1
"""Of passing, for a candidate that is equal to live from here on: below, judging ends."""

_GRID = 400
_NORMAL = NormalDist()
_NEVER = 7.0
"""Standard errors beyond which no boundary matters: it is crossed once in 10^12."""


def looks_at(rows: int) -> Sequence[int]:
    """Return after how many of so many rows their grades are looked at, the last time after all."""
    looks = max(1, min(MOST_LOOKS, rows // FEWEST_ROWS))
    return [rows * number // looks for number in range(1, looks + 1)]


def boundaries(fractions: tuple[float, ...], alpha: float) -> Sequence[float]:
    """Return the standardised statistic that decides at each look, one-sided at `alpha` overall.

    `fractions` are the shares of all rows that were judged by then. Lan and DeMets (Biometrika 70,
    1983, 659-663) with their spending function of the O'Brien-Fleming kind; the chance of crossing
    is integrated as in Armitage, McPherson and Rowe (J. R. Stat. Soc. A 132, 1969, 235-244).
    """
    return [_after(fractions[: look + 1], alpha)[0] for look in range(len(fractions))]


@cache
def _after(
    fractions: tuple[float, ...], alpha: float
) -> tuple[float, "NDArray[np.float64]", "NDArray[np.float64]"]:
    """Return the boundary of the last look, and the sum of the increments after it.

    Of the sum: where it may be if no boundary was crossed, and how likely it is there.
    """
    import numpy as np

    if not fractions:
        return _NEVER, np.zeros(1), np.ones(1)
    *earlier, now = fractions
    _, places, weights = _after(tuple(earlier), alpha)
    before = earlier[-1] if earlier else 0.0
    step, scale = math.sqrt(now - before), math.sqrt(now)
    so_far = [*zip(places.tolist(), weights.tolist(), strict=True)]
    error = _spent(now, alpha) - _spent(before, alpha)
    boundary = first(partial(_kept, so_far, scale, step, error), -_NEVER, _NEVER)
    ends = np.linspace(-_NEVER * scale, boundary * scale, _GRID)
    density = np.exp(-(((ends[:, None] - places) / step) ** 2) / 2) @ weights
    width = (ends[1] - ends[0]) / step / math.sqrt(2 * math.pi)
    trapezoid = np.where((np.arange(_GRID) % (_GRID - 1)) == 0, 0.5, 1.0)
    return boundary, ends, density * width * trapezoid


def _spent(fraction: float, alpha: float) -> float:
    """Return how much of the error is spent by then."""
    half = _NORMAL.inv_cdf(1 - alpha / 2)
    return math.erfc(half / math.sqrt(2 * fraction)) if fraction else 0.0


def _kept(
    so_far: Sequence[tuple[float, float]], scale: float, step: float, error: float, z: float
) -> bool:
    """Return whether the boundary `z` is crossed at this look with no more than the `error`."""
    crossed = (
        weight * math.erfc((z * scale - place) / step / math.sqrt(2)) for place, weight in so_far
    )
    return sum(crossed) / 2 <= error


def nominal_confidence(looks: Looks | None, confidence: float) -> float:
    """Return the confidence of an interval at the last look that keeps `confidence` overall."""
    if looks is None:
        return confidence
    fractions = tuple(each / looks.of for each in looks.at)
    return _NORMAL.cdf(boundaries(fractions, 1 - confidence)[-1])


def ended(
    looks: Looks, every: Slice, a_margin: float, c_margin: float, confidence: float
) -> str | None:
    """Return why judging may end with the rows of the last look; None where it goes on.

    `every` has the judged rows. It ends once both measures are non-inferior or one is inferior, at
    the boundary of this look, and where a candidate that is equal to live from here on would
    hardly pass and one that goes on as it did would hardly fail, so that nothing would be decided.
    """
    rows, a, c = every.a.rows, every.a, every.c
    # Of each measure in how many rows the candidate is better, in how many worse, and its margin.
    measures = (
        (len(a.only_candidate), len(a.only_live), a_margin),
        (len(c.only_live), len(c.only_candidate), c_margin),
    )
    boundary = boundaries(tuple(each / looks.of for each in looks.at), 1 - confidence)[-1]
    scores = [score(better, worse, rows, -margin) for better, worse, margin in measures]
    if min(scores) > boundary:
        return "passed"
    if min(scores) < -boundary:
        return "failed"
    planned = tuple(each / looks.of for each in looks_at(looks.of))
    last = boundaries(planned, 1 - confidence)[-1]
    chances = [_chances(*measure, rows, looks.of, last) for measure in measures]
    hopeless = any(passing < LITTLE_CHANCE for passing, _ in chances)
    return "futile" if hopeless and all(failing < 0.5 for _, failing in chances) else None


def _chances(
    better: int, worse: int, margin: float, rows: int, of: int, last: float
) -> tuple[float, float]:
    """Return how likely a measure passes in the end, and how likely it fails (Brownian motion).

    It passes as one that is equal to live from here on, and fails as one that goes on as it did.
    """
    left, gain = 1 - rows / of, (better - worse) / rows
    variance = (better + worse) / rows - gain**2
    if variance <= 0 or left <= 0:
        return 1.0, 1.0
    error = math.sqrt(variance / of)
    reached = (gain + margin) * (1 - left) / error
    equal, trend = margin / error, reached / (1 - left)

    def beyond(distance: float) -> float:
        return _NORMAL.cdf(distance / math.sqrt(left))

    return beyond(reached + equal * left - last), beyond(-reached - trend * left - last)
