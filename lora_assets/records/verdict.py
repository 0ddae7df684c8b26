"""A gate's decision with its evidence."""

import math
from collections.abc import Mapping
from typing import Literal, Self

from lora_assets.lifecycle import GateName
from lora_assets.records import Record

Comparison = Literal["<=", "<", ">=", ">"]

NEXT_STEPS: Mapping[str, str] = {
    "data_is_sound": "Mend the data and give it a new data version.",
    "quality_gate": "Train again with other parameters, or from better data.",
    "smoke_test": "Look at the replicas' logs, then deploy the version again.",
    "eval_gate": "Read the examples on eval_grades' page; train from better data.",
    "perf_gate": "Look at the latencies on perf_metrics' page; measure again on a quiet fleet.",
}
"""What to do after a gate failed."""


class Check(Record):
    """One number held against one limit.

    A number that is missing or not finite never passes, whatever the limit.
    """

    name: str
    measured: float | None
    comparison: Comparison
    limit: float

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
        match self.comparison:
            case "<=":
                return self.measured <= self.limit
            case "<":
                return self.measured < self.limit
            case ">=":
                return self.measured >= self.limit
            case ">":
                return self.measured > self.limit

    @property
    def margin(self) -> float | None:
        """How far `measured` lies inside its limit; negative: how far outside. None as measured."""
        if self.measured is None:
            return None
        return self.limit - self.measured if "<" in self.comparison else self.measured - self.limit

    def __str__(self) -> str:
        measured = "missing" if self.measured is None else f"{self.measured:.4g}"
        return f"{self.name} {measured} (must be {self.comparison} {self.limit:.4g})"


class Verdict(Record):
    """A gate's decision, and everything that it rests on.

    `digest` is the adapter's (the data's for `data_is_sound`); `compared_with` the digest
    of the live adapter that it was held against, None where there was none; `faults` name
    what kept the gate from deciding at all. `decided_at` is ISO 8601 in UTC.
    """

    gate: GateName
    digest: str
    compared_with: str | None = None
    data_version: str
    data_digest: str
    judge: str | None = None
    thresholds: Mapping[str, float] = {}
    checks: tuple[Check, ...]
    faults: tuple[str, ...] = ()
    evidence_run_id: str | None = None
    decided_at: str

    @property
    def passed(self) -> bool:
        """True when something was checked, nothing was faulty and every check passed."""
        return bool(self.checks) and not self.faults and all(c.passed for c in self.checks)

    @property
    def failures(self) -> tuple[str, ...]:
        """Why it did not pass, one line each; empty when it did."""
        return (*self.faults, *(str(check) for check in self.checks if not check.passed))
