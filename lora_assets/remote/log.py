"""A remote run's log: each event as a record, with its line of progress."""

from collections.abc import Mapping
from typing import Any

from lora_assets.records import Record
from lora_assets.records.run_outcome import GateOutcome, StepError, progress_line


class RunEvent(Record):
    """One event; `metadata` has the texts, whole numbers and JSON that it says of `asset`."""

    kind: str
    step: str = ""
    level: str = "INFO"
    message: str = ""
    asset: str = ""
    metadata: Mapping[str, str] = {}
    gate: GateOutcome | None = None
    error: StepError | None = None

    @property
    def shown(self) -> str | None:
        """Return the line of progress; None for an event that isn't progress."""
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
        return progress_line(self.step, text)


def event(raw: Mapping[str, Any]) -> RunEvent:
    """Return the record of an event as `logsForRun` of queries.graphql gives it."""
    step, evaluation, error = raw.get("step") or "", raw.get("evaluation"), raw.get("error")
    about = evaluation or raw
    # The stack trace stays in Dagster's UI.
    cause = (error["cause"] or error) if error else None
    return RunEvent(
        kind=raw["kind"],
        step=step,
        level=raw.get("level", "INFO"),
        message=raw.get("message", ""),
        asset="/".join((about.get("assetKey") or {}).get("path", ())),
        metadata={
            entry["label"]: entry["value"]
            for entry in about.get("metadataEntries", ())
            if "value" in entry
        },
        gate=evaluation
        and GateOutcome(
            name=evaluation["name"],
            passed=evaluation["passed"],
            description=evaluation["description"] or "",
        ),
        error=cause
        and StepError(
            step=step,
            class_name=cause["class_name"] or "",
            message=cause["message"],
            whole=" ".join(cause["message"].split()),
        ),
    )
