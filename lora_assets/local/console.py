"""The console output of a run: a line per step, message and gate."""

import logging
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
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
_CELLS = 10
_CLEAR = "\r\033[K"


def bar(line: str, columns: int) -> str | None:
    """Return a line of progress as a bar that fits into a terminal; None for another line."""
    if (found := _PROGRESS.fullmatch(line)) is None:
        return None
    what, done, total, unit, pace = found.groups(default="")
    filled = _CELLS * int(done) // max(int(total), 1)
    drawn = f"{what}[{'#' * filled:.<{_CELLS}}] {done}/{total}{unit}{pace}"
    if len(drawn) < columns:
        return drawn
    return f"  {' '.join(drawn.split())}"[: columns - 1]


def say(line: str) -> None:
    """Write a line to stderr; on a terminal, a bar of progress until the next line."""
    if not sys.stderr.isatty():
        print(line, file=sys.stderr, flush=True)
        return
    columns = os.get_terminal_size(sys.stderr.fileno()).columns or 80
    # The cursor stays behind a bar: what others write then covers none of it.
    print(_CLEAR, bar(line, columns) or f"{line}\n", sep="", end="", file=sys.stderr, flush=True)


@contextmanager
def bar_cleared() -> Iterator[None]:
    """Leave no bar behind when the block ends."""
    try:
        yield
    finally:
        if sys.stderr.isatty():
            print(_CLEAR, end="", file=sys.stderr, flush=True)


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
