"""The console output of a run: a line per step, message and gate."""

import logging
import re
import sys
from typing import Any

import dagster as dg

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


_PROGRESS = re.compile(
    r"(  \S+ +.*?)(\d+) of (\d+)( \w+)?((?:, \S+/s, \d+ s to go)?(?:, loss \S+)?)"
)
_CELLS = 20


def bar(line: str) -> str | None:
    """Return a line of progress as a bar with its rate and time to go; None for another line."""
    if (found := _PROGRESS.fullmatch(line)) is None:
        return None
    what, done, total, unit, pace = found.groups(default="")
    filled = _CELLS * int(done) // max(int(total), 1)
    return f"{what}[{'#' * filled:.<{_CELLS}}] {done}/{total}{unit}{pace}"


class _Terminal(logging.StreamHandler[Any]):
    """Draw progress in one line, in whose place the next message is written."""

    terminator = ""

    def format(self, record: logging.LogRecord) -> str:
        line = super().format(record)
        drawn = bar(line)
        return f"\033[K{line}\n" if drawn is None else f"\033[K{drawn}\r"


@dg.logger({}, "One line per step, message and gate.")
def progress_logger(context: dg.InitLoggerContext) -> logging.Logger:
    """The console logger of every run that the command line starts."""
    logger = logging.Logger("lora_assets", logging.DEBUG)
    handler = _Terminal() if sys.stderr.isatty() else logging.StreamHandler()
    handler.setFormatter(_Lines())
    handler.addFilter(_is_shown)
    logger.addHandler(handler)
    return logger
