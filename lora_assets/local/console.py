"""The console output of a run: a line per step, message and gate."""

import logging
from typing import Any

import dagster as dg

from lora_assets.local.terminal import say
from lora_assets.records.run_outcome import progress_line


class _Console(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        meta: dict[str, Any] = record.dagster_meta  # type: ignore[attr-defined]
        if (text := _text(meta, record.levelno)) is not None:
            say(progress_line(meta.get("step_key") or "", text))


def _text(meta: dict[str, Any], level: int) -> str | None:
    """Return what is shown of a message or an event; None where nothing is."""
    event: dg.DagsterEvent | None = meta.get("dagster_event")
    if event is None:
        # At ERROR, Dagster lists what it skips after a failure, which the command itself prints.
        return str(meta["orig_message"]) if level < logging.ERROR else None
    if event.event_type_value == "STEP_SUCCESS":
        return f"done in {event.step_success_data.duration_ms / 1000:.1f} s"
    if event.event_type_value != "ASSET_CHECK_EVALUATION":
        return None
    result = event.asset_check_evaluation_data
    return f"{'PASSED' if result.passed else 'FAILED'}: {result.description}"


@dg.logger({}, "One line per step, message and gate.")
def progress_logger(context: dg.InitLoggerContext) -> logging.Logger:
    """The console logger of every run that the command line starts."""
    logger = logging.Logger("lora_assets", logging.DEBUG)
    logger.addHandler(_Console())
    return logger
