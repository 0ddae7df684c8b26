"""A gate's decision with its evidence."""

import math
import operator
from collections.abc import Mapping
from typing import Literal, Self

from lora_assets.records import AdapterRecord, Record

GateName = Literal["data_is_sound", "quality_gate", "smoke_test", "eval_gate", "perf_gate"]
Comparison = Literal["<=", "<", ">=", ">"]


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


class Verdict(AdapterRecord):
    """A gate's decision, with everything that it rests on.

    `digest` is the adapter's (the data's for `data_is_sound`). `compared_with` is the digest of
    the live adapter that it was compared with, None where nothing was live. `faults` name what
    kept the gate from deciding; `notes` decide nothing. `decided_at` is ISO 8601 in UTC.
    """

    gate: GateName
    compared_with: str | None = None
    judge: str | None = None
    thresholds: Mapping[str, float] = {}
    checks: tuple[Check, ...]
    faults: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    evidence_run_id: str | None = None
    decided_at: str

    @property
    def passed(self) -> bool:
        """Return True if there are checks, each of them passed, and there is no fault."""
        return bool(self.checks) and not self.faults and all(c.passed for c in self.checks)

    @property
    def undecided(self) -> bool:
        """Return True if something kept the gate from deciding, so that no adapter is to blame."""
        return bool(self.faults)

    @property
    def failures(self) -> tuple[str, ...]:
        """Return each reason why it did not pass as one line; nothing when it did."""
        return (*self.faults, *(str(check) for check in self.checks if not check.passed))
