"""A remote run's log: each event as a record, and the line that it is printed as."""

from collections.abc import Mapping
from typing import Any

from lora_assets.local.console import line
from lora_assets.records import Record
from lora_assets.records.run_outcome import Gate, StepError


class RunEvent(Record):
    """One event; `metadata` has its texts and whole numbers, `asset` what they are about."""

    kind: str
    step: str = ""
    level: str = "INFO"
    message: str = ""
    asset: str = ""
    metadata: Mapping[str, str] = {}
    gate: Gate | None = None
    error: StepError | None = None

    @property
    def shown(self) -> str | None:
        """The line of progress; None for what would only be noise."""
        match self.kind:
            case "LogMessageEvent" if self.level not in ("ERROR", "CRITICAL"):
                text = self.message
            case "RunEnqueuedEvent":
                text = "queued"
            case "RunStartEvent" | "ExecutionStepSuccessEvent":
                text = self.message
            case "ExecutionStepUpForRetryEvent" if self.error:
                text = f"will be tried again: {self.error.reason}"
            case "AssetCheckEvaluationEvent" if self.gate:
                text = f"{'PASSED' if self.gate.passed else 'FAILED'}: {self.gate.description}"
            case _:
                return None
        return line(self.step, text)


def event(raw: Mapping[str, Any]) -> RunEvent:
    """An event as Dagster's GraphQL gives it."""
    evaluation = raw.get("evaluation")
    about = evaluation or raw
    step, error, path = raw.get("stepKey") or "", raw.get("error"), about.get("assetKey") or {}
    return RunEvent(
        kind=raw["__typename"],
        step=step,
        level=raw.get("level", "INFO"),
        message=raw.get("message", ""),
        asset="/".join(path.get("path", ())),
        metadata={
            entry["label"]: entry.get("text", entry.get("intRepr"))
            for entry in about.get("metadataEntries", ())
            if "text" in entry or "intRepr" in entry
        },
        gate=_gate(evaluation) if evaluation else None,
        error=_error(step, error) if error else None,
    )


def _gate(evaluation: Mapping[str, Any]) -> Gate:
    return Gate(
        name=evaluation["checkName"],
        passed=evaluation["success"],
        description=evaluation["description"] or "",
    )


def _error(step: str, error: Mapping[str, Any]) -> StepError:
    """The stack trace stays in Dagster's UI."""
    cause = error["cause"] or error
    return StepError(
        step=step,
        class_name=cause["className"] or "",
        message=cause["message"],
        whole=" ".join(cause["message"].split()),
    )
