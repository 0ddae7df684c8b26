"""The console output of a run: a line per step, message and gate."""

import logging
from typing import Any

import dagster as dg

from lora_assets.local.terminal import say
from lora_assets.records.run_outcome import progress_line


class _Lines(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        meta: dict[str, Any] = record.dagster_meta  # type: ignore[attr-defined]
        return progress_line(meta.get("step_key") or "", _text(meta))


def _text(meta: dict[str, Any]) -> str:
    event: dg.DagsterEvent | None = meta.get("dagster_event")
    if event is None:
        return str(meta["orig_message"])
    if event.event_type_value == "STEP_SUCCESS":
        return f"done in {event.step_success_data.duration_ms / 1000:.1f} s"
    result = event.asset_check_evaluation_data
    return f"{'PASSED' if result.passed else 'FAILED'}: {result.description}"


def _is_shown(record: logging.LogRecord) -> bool:
    meta: dict[str, Any] = record.dagster_meta  # type: ignore[attr-defined]
    event: dg.DagsterEvent | None = meta.get("dagster_event")
    if event is None:
        # At ERROR, Dagster lists what it skips after a failure, which the command itself prints.
        return record.levelno < logging.ERROR
    return event.event_type_value in ("STEP_SUCCESS", "ASSET_CHECK_EVALUATION")


class _Console(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        say(self.format(record))


@dg.logger({}, "One line per step, message and gate.")
def progress_logger(context: dg.InitLoggerContext) -> logging.Logger:
    """The console logger of every run that the command line starts."""
    logger = logging.Logger("lora_assets", logging.DEBUG)
    handler = _Console()
    handler.setFormatter(_Lines())
    handler.addFilter(_is_shown)
    logger.addHandler(handler)
    return logger
