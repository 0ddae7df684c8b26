"""Paired non-inferiority: is the candidate worse than live by a margin, on the same rows?"""

import math
from collections.abc import Callable
from statistics import NormalDist

from pydantic import Field

from lora_assets.records import Record
from lora_assets.records.grades import Differing
from lora_assets.records.verdict import Check, PairedEvidence, Rule

POWER = 0.8
"""How often an eval split should show that an adapter equal to live is no worse."""

_HALVINGS = 32
_MOST = 1000
"""Times the rows there are: beyond that, more rows are no advice."""


class ComparisonRule(Record):
    """How candidate and live are compared, by the evaluation and by the load test."""

    decision_rule: str = Field(
        "specification",
        pattern="^(specification|paired)$",
        description="How candidate and live are compared: specification or paired",
    )
    confidence: float = Field(
        0.95, ge=0.5, lt=1, description="One-sided confidence that a margin is kept"
    )

    @property
    def rules(self) -> tuple[Rule, Rule]:
        """Return the rule that decides, and the other one."""
        is_paired = self.decision_rule == "paired"
        return ("paired", "specification") if is_paired else ("specification", "paired")


def score_interval(
    better: float, worse: float, rows: float, confidence: float
) -> tuple[float, float]:
    """Return the limits of a difference of paired proportions, each one-sided at `confidence`.

    The difference is (better - worse) / rows. `better` rows have it for the candidate alone and
    `worse` for live alone. Tango, Statistics in Medicine 17 (1998) 891-908, equations 24-26: the
    limits are those differences that the score test just does not reject.
    """
    z = NormalDist().inv_cdf(confidence)

    def lower(better: float, worse: float) -> float:
        def accepted(difference: float) -> bool:
            return score(better, worse, rows, difference) <= z

        return first(accepted, -1.0, (better - worse) / rows)

    return lower(better, worse), -lower(worse, better)


def score(better: float, worse: float, rows: float, difference: float) -> float:
    """Return the score statistic of a true difference; it falls as the difference grows.

    Of a difference of minus the margin it tells, beyond the confidence's quantile, that the
    candidate is non-inferior, and below minus that, that it is inferior.
    """
    b = -better - worse + (2 * rows - better + worse) * difference
    c = -worse * difference * (1 - difference)
    # Of `worse`, the most likely share under that difference.
    share = (math.sqrt(max(b * b - 8 * rows * c, 0.0)) - b) / (4 * rows)
    variance = rows * (2 * share + difference * (1 - difference))
    distance = better - worse - rows * difference
    if distance == 0:
        return 0.0
    return distance / math.sqrt(variance) if variance > 0 else math.copysign(math.inf, distance)


def first(holds: Callable[[float], bool], low: float, high: float) -> float:
    """Return the smallest number at which `holds`, which stays true up to `high`."""
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (low, middle) if holds(middle) else (middle, high)
    return high


def paired_evidence(
    measure: str, rows: Differing, margin: float, confidence: float, more_is_worse: bool = False
) -> PairedEvidence:
    """Return what the rows show of one measure; there must be a row.

    `margin` is how much worse the candidate may be. Of a measure such as the C-rate more is worse.
    """
    ours, theirs, count = len(rows.only_candidate), len(rows.only_live), rows.rows
    lower, upper = score_interval(ours, theirs, count, confidence)
    evidence = PairedEvidence(
        measure=measure,
        rows=count,
        only_candidate=ours,
        only_live=theirs,
        lower=lower,
        upper=upper,
        margin=margin,
        confidence=confidence,
        more_is_worse=more_is_worse,
    )
    if evidence.state != "undecided":
        return evidence
    return evidence.model_copy(update={"more_rows": _more_rows(evidence)})


def _more_rows(evidence: PairedEvidence) -> int | None:
    """Return how many more rows would decide, if they differ as these do; None if none would."""
    z = NormalDist().inv_cdf(evidence.confidence)
    better, worse = evidence.only_candidate, evidence.only_live
    if evidence.more_is_worse:
        better, worse = worse, better

    def decided(times: float) -> bool:
        rows = evidence.rows * times
        return abs(score(better * times, worse * times, rows, -evidence.margin)) > z

    if not decided(_MOST):
        return None
    return math.ceil((first(decided, 1.0, _MOST) - 1) * evidence.rows)


def check(evidence: PairedEvidence) -> Check:
    """Return the check that the candidate is worse by less than the margin.

    It holds the limit of the interval that lies on the worse side against the margin.
    """
    name = f"{evidence.measure} vs live, {'upper' if evidence.more_is_worse else 'lower'} limit"
    undecided = evidence.state == "undecided"
    if evidence.more_is_worse:
        held = Check(name=name, measured=evidence.upper, comparison="<", limit=evidence.margin)
    else:
        held = Check(name=name, measured=evidence.lower, comparison=">", limit=-evidence.margin)
    return held.model_copy(update={"undecided": undecided})


def rows_needed(margin: float, confidence: float) -> int:
    """Return the fewest rows on which even equal answers show that the margin is kept."""
    z = NormalDist().inv_cdf(confidence)
    return math.floor(z * z * (1 - margin) / margin) + 1


def most_differing(rows: int, margin: float, confidence: float) -> float:
    """Return the largest share of rows that may differ for an equal adapter to pass mostly.

    Mostly is with a probability of POWER. By the normal approximation: rows margin² / (z of the
    confidence + z of the power)².
    """
    z = NormalDist().inv_cdf(confidence) + NormalDist().inv_cdf(POWER)
    return min(1.0, rows * margin * margin / (z * z))
