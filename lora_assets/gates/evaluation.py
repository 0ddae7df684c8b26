"""Eval gate: are the candidate's answers good enough, and no worse than those of live?"""

from pydantic import Field

from lora_assets.records import Record, Share
from lora_assets.records.grades import EvalGrades, Scores
from lora_assets.records.verdict import Check, Verdict


class EvalThresholds(Record):
    """The specification's limits ("Evaluation Workflow", Decision Logic), and one on the judge."""

    min_a_rate: Share = Field(0.70, description="Minimum A-rate, first deployment")
    max_c_rate: Share = Field(0.10, description="Maximum C-rate, first deployment")
    min_refusal_rate: Share = Field(0.90, description="Minimum refusal rate on negatives")
    allow_no_negatives: bool = Field(
        False, description="Take data without negatives: refusals are not judged"
    )
    max_ungraded_rate: Share = Field(
        0.01, description="Maximum share of answers that the judge gave no readable grade"
    )


def _ungraded(side: str, scores: Scores, thresholds: EvalThresholds) -> tuple[str, ...]:
    rate, limit = scores.ungraded_rate, thresholds.max_ungraded_rate
    if rate is None:
        return (f"{side}: no answer was graded",)
    if rate <= limit:
        return ()
    share = f"{scores.ungraded} of {scores.graded + scores.ungraded}"
    return (f"{side}: {share} answers are ungraded ({rate:.1%}, at most {limit:.1%})",)


def eval_gate(grades: EvalGrades, thresholds: EvalThresholds, decided_at: str) -> Verdict:
    """Decide on the candidate's grades: against live where something is live, else absolutely.

    The refusal rate has to reach its floor in both cases, unless there is nothing to refuse and
    the run allows that.
    """
    candidate, live = grades.candidate, grades.live
    faults = _ungraded("candidate", candidate, thresholds)
    unjudged = thresholds.allow_no_negatives and candidate.negatives == 0
    rate = candidate.refusal_rate
    refusals = [Check.at_least("refusal_rate", rate, thresholds.min_refusal_rate)]
    if live is not None and live.refusal_rate is not None:
        refusals.append(Check.at_least("refusal_rate vs live", rate, live.refusal_rate))
    if unjudged:
        refusals = []
    checks: tuple[Check, ...] = ()
    if live is None:
        checks = (
            Check.at_least("a_rate", candidate.a_rate, thresholds.min_a_rate),
            Check.at_most("c_rate", candidate.c_rate, thresholds.max_c_rate),
            *refusals,
        )
    else:
        faults += _ungraded("live", live, thresholds)
        missing = live.refusal_rate is None and not unjudged
        if live.a_rate is None or live.c_rate is None or missing:
            faults += ("live: a rate is missing, so there is nothing to compare with",)
        else:
            checks = (
                Check.at_least("a_rate vs live", candidate.a_rate, live.a_rate),
                Check.at_most("c_rate vs live", candidate.c_rate, live.c_rate),
                *refusals,
            )
    if faults and grades.unread:
        faults += (f"the judge {grades.judge_model} can't be read: {grades.unread}",)
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
        notes=("no negatives: refusals are not judged",) if unjudged else (),
        evidence_run_id=grades.mlflow_run_id,
        decided_at=decided_at,
    )
