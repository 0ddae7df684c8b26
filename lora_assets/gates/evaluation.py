"""Eval gate: are the candidate's answers good enough, and no worse than those of live?"""

from collections.abc import Callable, Sequence

from pydantic import Field

from lora_assets.errors import LoraAssetsError
from lora_assets.gates.paired import (
    ComparisonRule,
    check,
    most_differing,
    paired_evidence,
    rows_needed,
)
from lora_assets.gates.sequential import nominal_confidence
from lora_assets.records import Share
from lora_assets.records.grades import Differing, EvalGrades, Scores, Slice
from lora_assets.records.verdict import Check, PairedEvidence, Rule, Verdict

_SHOWN_ROWS = 10


class DecisionRule(ComparisonRule):
    """How candidate and live are compared. Rates are shares of 1.

    `specification` asks each rate to be as good as that of live. `paired` asks for confidence,
    row by row, that it is worse by less than a margin (docs/gates.md).
    """

    a_margin: float = Field(0.03, gt=0, lt=1, description="How much lower the A-rate may be")
    c_margin: float = Field(0.02, gt=0, lt=1, description="How much higher the C-rate may be")
    refusal_margin: float = Field(
        0.05, gt=0, lt=1, description="How much lower the refusal rate may be"
    )


class EvalThresholds(DecisionRule):
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
    min_judge_accuracy: Share = Field(
        0.80, description="Minimum mean share of known right and wrong answers graded A and C"
    )


def _ungraded(side: str, scores: Scores, thresholds: EvalThresholds) -> tuple[str, ...]:
    rate, limit = scores.ungraded_rate, thresholds.max_ungraded_rate
    if rate is None:
        return (f"{side}: no answer was graded",)
    if rate <= limit:
        return ()
    share = f"{scores.ungraded} of {scores.graded + scores.ungraded}"
    return (f"{side}: {share} answers are ungraded ({rate:.1%}, at most {limit:.1%})",)


def _judge(grades: EvalGrades, thresholds: EvalThresholds) -> tuple[str, ...]:
    """Return why the judge's grades prove nothing, if its measure says so."""
    measured, limit = grades.measured, thresholds.min_judge_accuracy
    if measured is None or not (measured.a_due or measured.c_due):
        return ()
    if measured.accuracy is None:
        return (
            f"the judge {grades.judge_model} can't be measured, since no wrong answer to these "
            f"rows is known: {measured}; --judge-controls 0 goes without",
        )
    if measured.accuracy >= limit:
        return ()
    return (
        f"the judge {grades.judge_model} can't tell right from wrong: {measured} "
        f"(accuracy {measured.accuracy:.2f}, at least {limit:.2f})",
    )


def eval_gate(grades: EvalGrades, thresholds: EvalThresholds, decided_at: str) -> Verdict:
    """Decide on the candidate's grades: against live where something is live, else absolutely.

    The refusal rate has to reach its floor in both cases, unless there is nothing to refuse and
    the run allows that. Against live the verdict has the paired evidence, and says what the other
    rule would say.
    """
    faults = _judge(grades, thresholds)
    faults += _ungraded("candidate", grades.candidate, thresholds)
    if grades.live is not None:
        faults += _ungraded("live", grades.live, thresholds)
    unjudged = thresholds.allow_no_negatives and grades.candidate.negatives == 0
    measured = () if grades.measured is None else (str(grades.measured),)
    unjudged_note = ("no negatives: refusals are not judged",) if unjudged else ()
    looks = () if grades.looks is None else (str(grades.looks),)
    by_people = map(str, grades.corrected)
    notes = (*unjudged_note, *looks, *measured, *by_people, *grades.kept, *grades.lacking)
    evidence = tuple(_evidence(grades, thresholds))

    def decide(rule: Rule) -> Verdict:
        checks, more = _checks(grades, thresholds, rule, evidence, unjudged)
        own = faults + more + (grades.lacking if rule == "paired" else ())
        early = grades.looks is not None and grades.looks.ended
        if early and rule == thresholds.decision_rule == "specification":
            own += (f"the specification wants every grade, but {grades.looks}",)
        if own and grades.unread:
            own += (f"the judge {grades.judge_model} can't be read: {grades.unread}",)
        return Verdict(
            gate="eval_gate",
            **grades.identity,
            compared_with=grades.live_digest,
            vllm_url=grades.vllm_url,
            judge=grades.judge_model,
            judge_url=grades.judge_url,
            rule=rule,
            thresholds=thresholds.model_dump(exclude={"decision_rule"}),
            checks=checks,
            paired=evidence,
            faults=own,
            notes=notes,
            evidence_run_id=grades.mlflow_run_id,
            decided_at=decided_at,
        )

    rule, other = thresholds.rules
    verdict = decide(rule)
    if not evidence:
        return verdict
    by_other = decide(other).by_its_rule
    more_notes = (*map(str, evidence), *_drivers(grades.slices, verdict), by_other)
    return verdict.model_copy(update={"notes": notes + more_notes})


def _checks(
    grades: EvalGrades,
    thresholds: EvalThresholds,
    rule: Rule,
    evidence: Sequence[PairedEvidence],
    unjudged: bool,
) -> tuple[tuple[Check, ...], tuple[str, ...]]:
    """Return the checks of a rule, and what keeps it from having some."""
    candidate, live = grades.candidate, grades.live
    rate = candidate.refusal_rate
    floor = [Check.at_least("refusal_rate", rate, thresholds.min_refusal_rate)]
    refusals = [] if unjudged else floor
    if live is None:
        absolute = (
            Check.at_least("a_rate", candidate.a_rate, thresholds.min_a_rate),
            Check.at_most("c_rate", candidate.c_rate, thresholds.max_c_rate),
        )
        return (*absolute, *refusals), ()
    if rule == "paired":
        wanted = {"a_rate", "c_rate"} if unjudged else {"a_rate", "c_rate", "refusal_rate"}
        lacking = sorted(wanted - {each.measure for each in evidence})
        faults = tuple(
            f"{measure}: candidate and live have no row in common" for measure in lacking
        )
        return (*map(check, evidence), *refusals), faults
    if live.a_rate is None or live.c_rate is None or (live.refusal_rate is None and not unjudged):
        return (), ("live: a rate is missing, so there is nothing to compare with",)
    if live.refusal_rate is not None and not unjudged:
        refusals.append(Check.at_least("refusal_rate vs live", rate, live.refusal_rate))
    compared = (
        Check.at_least("a_rate vs live", candidate.a_rate, live.a_rate),
        Check.at_most("c_rate vs live", candidate.c_rate, live.c_rate),
    )
    return (*compared, *refusals), ()


def _evidence(grades: EvalGrades, rule: DecisionRule) -> Sequence[PairedEvidence]:
    """Return the paired evidence of each measure that both sides have rows for.

    So it does on the splits of other data versions, whose measures have their names.
    """
    splits = [(each.every, each.looks, f" of {each.every.name}") for each in grades.others]
    found = []
    for every, looks, of in [*((own, grades.looks, "") for own in grades.slices[:1]), *splits]:
        judged = nominal_confidence(looks, rule.confidence)
        measures = (
            ("a_rate", every.a, rule.a_margin, judged, False),
            ("c_rate", every.c, rule.c_margin, judged, True),
            ("refusal_rate", every.refusals, rule.refusal_margin, rule.confidence, False),
        )
        found += [
            paired_evidence(f"{measure}{of}", differing, margin, confidence, more_is_worse)
            for measure, differing, margin, confidence, more_is_worse in measures
            if differing.rows
        ]
    return found


def _drivers(slices: Sequence[Slice], verdict: Verdict) -> Sequence[str]:
    """Return, for each measure that did not pass, the slice in which most was lost."""
    measures: dict[str, Callable[[Slice], Differing]] = {
        "a_rate": lambda each: each.a,
        "c_rate": lambda each: each.c,
        "refusal_rate": lambda each: each.refusals,
    }
    missed = {each.name.partition(" vs ")[0] for each in verdict.checks if not each.passed}

    def lost(differing: Differing, measure: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Return the rows that got worse, and those that got better."""
        ways = (differing.only_live, differing.only_candidate)
        return ways[::-1] if measure == "c_rate" else ways

    found = []
    for measure in [each for each in measures if each in missed and len(slices) > 1]:
        cases = [(lost(measures[measure](each), measure), each) for each in slices[1:]]
        (worse, better), worst = max(cases, key=lambda case: len(case[0][0]) - len(case[0][1]))
        if len(worse) > len(better):
            shown = ", ".join(str(row + 1) for row in worse[:_SHOWN_ROWS])
            more = ", …" if len(worse) > _SHOWN_ROWS else ""
            found.append(
                f"{measure}: most is lost in {worst.name}, {len(worse)} rows worse and "
                f"{len(better)} better of {measures[measure](worst).rows} (worse: {shown}{more})"
            )
    return found


def what_it_shows(rows: int, negatives: int, rule: DecisionRule, of: str = "") -> Sequence[str]:
    """Return what an eval split (`of` what) can show, a line per measure, before it is answered.

    Raise LoraAssetsError where no row is answerable, or where the rule is `paired` and even equal
    answers would leave it undecided.
    """
    if rows <= negatives:
        raise LoraAssetsError(
            f"The eval split{of} has no answerable row: an adapter that always declines would pass",
            "Add answerable rows to a new data version.",
        )
    measures = [("a_rate", rows, rule.a_margin), ("c_rate", rows, rule.c_margin)]
    measures += [("refusal_rate", negatives, rule.refusal_margin)] if negatives else []
    shown = []
    for measure, count, margin in measures:
        needed = rows_needed(margin, rule.confidence)
        if count >= needed:
            share = most_differing(count, margin, rule.confidence)
            shown.append(f"{measure}: mostly decided if at most {share:.1%} of {count} rows differ")
            continue
        too_few = f"{measure}: {count} rows can't show a margin of {margin:g}, {needed} are needed"
        if rule.decision_rule == "paired":
            raise LoraAssetsError(
                f"The eval split{of} is too small for the rule paired ({too_few})",
                f"{'Leave it out of --also-evaluate' if of else 'Add rows'}, allow a wider margin, "
                "or take --decision-rule specification.",
            )
        shown.append(too_few)
    return shown
