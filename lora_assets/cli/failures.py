"""Why a run failed, in one line for each thing that stopped it."""

from collections.abc import Sequence

from lora_assets.errors import LoraAssetsError
from lora_assets.records import Record


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
        """One line for an error that is meant for a person; the whole of any other."""
        if self.class_name == LoraAssetsError.__name__:
            return f"{self.step}: {self.message.partition(': ')[2].strip()}"
        return f"{self.step}: {self.whole.strip()}"


def failure(gates: Sequence[Gate], errors: Sequence[StepError], otherwise: str) -> RunFailed:
    """The first gate that failed; else every step's error; else what the run itself said."""
    for gate in gates:
        if not gate.passed:
            return RunFailed((f"{gate.name} stopped it: {gate.description}",), gate.name)
    return RunFailed(tuple(error.reason for error in errors) or (otherwise,), None)
