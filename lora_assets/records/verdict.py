"""A gate's decision with its evidence."""

import math
import operator
from collections.abc import Collection, Mapping
from typing import Literal, Self

from lora_assets.records import RECORD_FORMAT, AdapterRecord, Record
from lora_assets.records.markdown import as_it_is

GateName = Literal["data_is_sound", "quality_gate", "smoke_test", "eval_gate", "perf_gate"]
Comparison = Literal["<=", "<", ">=", ">"]
Rule = Literal["specification", "paired"]
Outcome = Literal["passed", "failed", "inconclusive"]


class Check(Record):
    """One number held against one limit.

    A number that is missing or not finite never passes, whatever the limit. One that is
    `undecided` does not pass, but more rows could show that it should.
    """

    name: str
    measured: float | None
    comparison: Comparison
    limit: float
    undecided: bool = False

    @classmethod
    def at_least(cls, name: str, measured: float | None, limit: float) -> Self:
        """Return the check that `measured` is `limit` or more."""
        return cls(name=name, measured=measured, comparison=">=", limit=limit)

    @classmethod
    def at_most(cls, name: str, measured: float | None, limit: float) -> Self:
        """Return the check that `measured` is `limit` or less."""
        return cls(name=name, measured=measured, comparison="<=", limit=limit)

    @property
    def passed(self) -> bool:
        if self.measured is None or not math.isfinite(self.measured):
            return False
        holds = {"<=": operator.le, "<": operator.lt, ">=": operator.ge, ">": operator.gt}
        return bool(holds[self.comparison](self.measured, self.limit))

    @property
    def margin(self) -> float | None:
        """Return how far inside its limit `measured` lies: negative outside, None if missing."""
        if self.measured is None:
            return None
        return self.limit - self.measured if "<" in self.comparison else self.measured - self.limit

    def __str__(self) -> str:
        measured = "missing" if self.measured is None else f"{self.measured:.4g}"
        return f"{self.name} {measured} (must be {self.comparison} {self.limit:.4g})"


class PairedEvidence(Record):
    """One measure of candidate and live on the same rows: how far they differ, and how surely.

    The difference is candidate minus live, in shares of 1; its true value lies above `lower` and
    below `upper`, each with `confidence`. `only_candidate` and `only_live` count the rows that
    differ. `margin` is how much worse the candidate may be. `more_rows` of the same kind would
    decide what these leave undecided; None where it is decided, or where none would.
    """

    measure: str
    rows: int
    only_candidate: int
    only_live: int
    lower: float
    upper: float
    margin: float
    confidence: float
    more_is_worse: bool = False
    more_rows: int | None = None

    @property
    def estimate(self) -> float:
        return (self.only_candidate - self.only_live) / self.rows

    @property
    def state(self) -> Literal["non-inferior", "inferior", "undecided"]:
        """Return whether the candidate is worse by less than the margin, by more, or maybe so."""
        least, most = self.lower, self.upper
        if self.more_is_worse:
            least, most = -self.upper, -self.lower
        if least > -self.margin:
            return "non-inferior"
        return "inferior" if most < -self.margin else "undecided"

    def __str__(self) -> str:
        differing = self.only_candidate + self.only_live
        more = "" if self.more_rows is None else f" ({self.more_rows} more rows would decide)"
        return (
            f"{self.measure} {self.estimate:+.3f} against live "
            f"[{self.lower:+.3f}, {self.upper:+.3f}], margin {self.margin:g}, "
            f"{differing} of {self.rows} rows differ: {self.state}{more}"
        )


class Verdict(AdapterRecord):
    """A gate's decision, with everything that it rests on.

    `digest` is the adapter's (the data's for `data_is_sound`). `compared_with` is the digest of
    the live adapter that it was compared with, None where nothing was live. `faults` name what
    kept the gate from deciding; `notes` decide nothing. `paired` is evidence whatever the `rule`.
    `policy` is the digest of the deployment's policy, None for the specification's. `decided_at`
    is ISO 8601 in UTC; `dagster_run` is the id of the run that decided.
    """

    record_format: int = RECORD_FORMAT
    gate: GateName
    compared_with: str | None = None
    judge: str | None = None
    judge_url: str | None = None
    vllm_url: str | None = None
    rule: Rule = "specification"
    thresholds: Mapping[str, float] = {}
    checks: tuple[Check, ...]
    paired: tuple[PairedEvidence, ...] = ()
    faults: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    evidence_run_id: str | None = None
    policy: str | None = None
    decided_at: str
    dagster_run: str | None = None

    @property
    def passed(self) -> bool:
        """Return True if there are checks, each of them passed, and there is no fault."""
        return bool(self.checks) and not self.faults and all(c.passed for c in self.checks)

    @property
    def undecided(self) -> bool:
        """Return True if a fault or too few rows kept the gate from deciding."""
        missed = [check for check in self.checks if not check.passed]
        return bool(self.faults) or (bool(missed) and all(check.undecided for check in missed))

    @property
    def outcome(self) -> Outcome:
        if self.passed:
            return "passed"
        return "inconclusive" if self.undecided else "failed"

    @property
    def failures(self) -> tuple[str, ...]:
        """Return each reason why it did not pass as one line; nothing when it did."""
        return (*self.faults, *(str(check) for check in self.checks if not check.passed))

    @property
    def by_its_rule(self) -> str:
        """Return rule, outcome and failures as one line."""
        return f"by the rule {self.rule}: {'; '.join((self.outcome, *self.failures))}"


_NOTE = "| gate | outcome | check | measured | must be |"
_MADE_BY = "[Dagster run]("


def run_link(ui: str, run_id: str | None, text: str = "Dagster run") -> str:
    """Return a link to a Dagster run in Markdown; empty where there is no UI or run."""
    return f"[{text}]({ui.rstrip('/')}/runs/{run_id})" if ui and run_id else ""


def gate_note(
    verdicts: Collection[Verdict],
    before: str | None,
    dagster_ui: str = "",
    report: str | None = None,
) -> str:
    """Return gates as a Markdown table, as MLflow shows it on a run or a model version.

    Each gate is a link to the Dagster run that decided; below them is one to the `report`. A first
    line that says which run made it stays; so does all of a description `before` that a person
    wrote.
    """
    made_by, _, rest = before.partition("\n") if before else ("", "", "")
    if not made_by.startswith(_MADE_BY):
        made_by, rest = "", before or ""
    if rest.strip() and not rest.strip().startswith(_NOTE):
        return before or ""
    lines = [made_by, ""] if made_by else []
    lines += [_NOTE, "|---|---|---|---|---|"]
    for verdict in verdicts:
        gate = run_link(dagster_ui, verdict.dagster_run, verdict.gate) or verdict.gate
        for fault in verdict.faults:
            lines.append(f"| {gate} | {verdict.outcome} | {as_it_is(fault)} | | |")
        for check in verdict.checks:
            measured = "missing" if check.measured is None else f"{check.measured:.4g}"
            limit = f"{check.comparison} {check.limit:.4g}"
            lines.append(
                f"| {gate} | {verdict.outcome} | {as_it_is(check.name)} | {measured} | {limit} |"
            )
    for name in sorted({verdict.data_version for verdict in verdicts}):
        page = f"[report.html]({report})" if report else "report.html"
        lines += [
            "",
            f"{page} among the training's artifacts has all on one page, once the last gate "
            f"decided or one said no; `lora-assets report --data-version {name}` makes it anew.",
        ]
    return "\n".join(lines)
