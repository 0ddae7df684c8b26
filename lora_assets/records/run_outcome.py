"""Why a run failed, in one line for each thing that stopped it."""

import errno
import os
from collections.abc import Sequence

from lora_assets.errors import LoraAssetsError
from lora_assets.records import Record
from lora_assets.records.verdict import NEXT_STEPS

_NO_ROOM = (os.strerror(errno.ENOSPC), "database or disk is full")
"""What the operating system and SQLite say of a full disk."""


class RunFailed(Exception):
    """A run ended without success; `reasons` has a line for each thing that stopped it."""

    def __init__(self, reasons: tuple[str, ...], gate: str | None) -> None:
        self.reasons = reasons
        self.gate = gate
        super().__init__("; ".join(reasons))


class Gate(Record):
    """What a gate decided, as a run's log has it."""

    name: str
    passed: bool
    description: str


class StepError(Record):
    """What stopped a step: the class and message of the cause, and the whole of it."""

    step: str
    class_name: str
    message: str
    whole: str

    @property
    def reason(self) -> str:
        """One line for a full disk or an error that is meant for a person; the whole of others."""
        if self.class_name == LoraAssetsError.__name__:
            return f"{self.step}: {self.message.partition(': ')[2].strip()}"
        return f"{self.step}: {full_disk(self.whole) or self.whole.strip()}"


def failure(gates: Sequence[Gate], errors: Sequence[StepError], otherwise: str) -> RunFailed:
    """The first gate that failed; else every step's error; else what the run itself said."""
    for gate in gates:
        if not gate.passed:
            reason = f"{gate.name} stopped it: {gate.description}. {NEXT_STEPS[gate.name]}"
            return RunFailed((reason,), gate.name)
    return RunFailed(tuple(error.reason for error in errors) or (otherwise,), None)


def full_disk(trace: str) -> str | None:
    """One line for an error that a full disk is at the bottom of; None for any other.

    `trace` is the error with its causes, as Python prints them.
    """
    for said in trace.splitlines():
        if any(words in said for words in _NO_ROOM):
            return (
                f"The disk is full ({said.strip()}). Free some space, then run this again; "
                "it goes on where it was."
            )
    return None
