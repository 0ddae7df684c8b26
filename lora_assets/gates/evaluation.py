"""Eval gate: are the candidate's answers good enough, and no worse than those of live?"""

from pydantic import Field

from lora_assets.records import Record
from lora_assets.records.grades import EvalGrades, Scores
from lora_assets.records.verdict import Check, Comparison, Verdict


class EvalThresholds(Record):
    """The specification's limits ("Evaluation Workflow", Decision Logic), and one on the judge."""

    min_a_rate: float = Field(
        0.70, ge=0, le=1, allow_inf_nan=False, description="Minimum A-rate, first deployment"
    )
    max_c_rate: float = Field(
        0.10, ge=0, le=1, allow_inf_nan=False, description="Maximum C-rate, first deployment"
    )
    min_refusal_rate: float = Field(
        0.90, ge=0, le=1, allow_inf_nan=False, description="Minimum refusal rate on negatives"
    )
    max_ungraded_rate: float = Field(
        0.01,
        ge=0,
        le=1,
        allow_inf_nan=False,
        description="Maximum share of answers that the judge gave no readable grade",
    )


def _check(name: str, measured: float | None, comparison: Comparison, limit: float) -> Check:
    return Check(name=name, measured=measured, comparison=comparison, limit=limit)


def _ungraded(side: str, scores: Scores, thresholds: EvalThresholds) -> tuple[str, ...]:
    rate = scores.ungraded_rate
    if rate is None:
        return (f"{side}: no answer was graded",)
    if rate > thresholds.max_ungraded_rate:
        return (
            f"{side}: {scores.ungraded} of {scores.graded + scores.ungraded} answers are ungraded "
            f"({rate:.1%}, at most {thresholds.max_ungraded_rate:.1%})",
        )
    return ()


def _absolute(candidate: Scores, thresholds: EvalThresholds) -> tuple[Check, ...]:
    return (
        _check("a_rate", candidate.a_rate, ">=", thresholds.min_a_rate),
        _check("c_rate", candidate.c_rate, "<=", thresholds.max_c_rate),
        _check("refusal_rate", candidate.refusal_rate, ">=", thresholds.min_refusal_rate),
    )


def _comparative(
    candidate: Scores, live: Scores, thresholds: EvalThresholds
) -> tuple[tuple[Check, ...], tuple[str, ...]]:
    if live.a_rate is None or live.c_rate is None or live.refusal_rate is None:
        return (), ("live: a rate is missing, so there is nothing to compare with",)
    return (
        _check("a_rate vs live", candidate.a_rate, ">=", live.a_rate),
        _check("c_rate vs live", candidate.c_rate, "<=", live.c_rate),
        _check("refusal_rate", candidate.refusal_rate, ">=", thresholds.min_refusal_rate),
        _check("refusal_rate vs live", candidate.refusal_rate, ">=", live.refusal_rate),
    ), ()


def eval_gate(grades: EvalGrades, thresholds: EvalThresholds, decided_at: str) -> Verdict:
    """Decide on the candidate's grades: against live where something is live, else absolutely."""
    faults = _ungraded("candidate", grades.candidate, thresholds)
    if grades.live is None:
        checks = _absolute(grades.candidate, thresholds)
    else:
        checks, missing = _comparative(grades.candidate, grades.live, thresholds)
        faults += _ungraded("live", grades.live, thresholds) + missing
    return Verdict(
        gate="eval_gate",
        digest=grades.digest,
        compared_with=grades.live_digest,
        data_version=grades.data_version,
        data_digest=grades.data_digest,
        judge=grades.judge_model,
        thresholds=thresholds.model_dump(),
        checks=checks,
        faults=faults,
        evidence_run_id=grades.mlflow_run_id,
        decided_at=decided_at,
    )
