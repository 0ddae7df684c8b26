"""What a run's log says of its outcome: gates, errors of steps, why it failed."""

import errno
import os

from lora_assets.errors import LoraAssetsError
from lora_assets.records import Record

_DISK_FULL = (os.strerror(errno.ENOSPC), "database or disk is full")
"""The words of the operating system and of SQLite for a full disk."""


class GateOutcome(Record):
    """A gate's decision."""

    name: str
    passed: bool
    description: str


class StepError(Record):
    """The error that stopped a step: class and message of its cause, and the whole of it."""

    step: str
    class_name: str
    message: str
    whole: str

    @property
    def reason(self) -> str:
        """Return one line for a full disk or an error meant for a person; else the whole error."""
        if self.class_name == LoraAssetsError.__name__:
            return f"{self.step}: {self.message.partition(': ')[2].strip()}"
        return f"{self.step}: {full_disk(self.whole) or self.whole.strip()}"


class RunFailed(Exception):
    """A run ended without success; `reasons` has a line for each thing that stopped it."""

    def __init__(self, reasons: tuple[str, ...], gate: str | None = None) -> None:
        self.reasons = reasons
        self.gate = gate
        super().__init__("; ".join(reasons))


def progress_line(step: str, text: str) -> str:
    """Return a line of a run's progress, after the step that it is about."""
    return f"  {step:<30} {text}"


def full_disk(trace: str) -> str | None:
    """Return one line for an error that a full disk caused, None for any other.

    `trace` is the error with its causes, as Python prints them.
    """
    for line in trace.splitlines():
        if any(words in line for words in _DISK_FULL):
            return (
                f"The disk is full ({line.strip()}). Free some space, then run this again; "
                "it goes on where it was."
            )
    return None
