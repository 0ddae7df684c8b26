"""What becomes of a run in this process that a signal stops."""

import ctypes
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from dagster import DagsterInstance, DagsterRunStatus

from lora_assets.stop_signals import SIGNALS


@contextmanager
def noted_signals() -> Iterator[Callable[[], int | None]]:
    """Yield what returns the first SIGINT or SIGTERM of the block; None without one.

    Dagster handles both alike, and doesn't tell which one came.
    """
    reader, writer = socket.socketpair()
    with reader, writer:
        for end in (reader, writer):
            end.setblocking(False)
        before = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)

        came: list[int] = []

        def first() -> int | None:
            with suppress(BlockingIOError):
                came.extend(n for n in reader.recv(4096) if n in SIGNALS)
            return came[0] if came else None

        try:
            yield first
        finally:
            signal.set_wakeup_fd(before)


def interrupt(thread: int) -> None:
    """Raise KeyboardInterrupt in a thread that polls for its turn, deaf to signals."""
    ctypes.pythonapi.PyThreadState_SetAsyncExc(
        ctypes.c_ulong(thread), ctypes.py_object(KeyboardInterrupt)
    )


def mark_cancelled(instance: DagsterInstance, run_id: str) -> str:
    """Mark a run that was stopped as cancelled, unless it has succeeded; return what was done.

    Dagster takes an interrupt that it did not ask for itself for a failure, after which the sensor
    `new_data_versions` would begin the run again.
    """
    run = instance.get_run_by_id(run_id)
    if run is None:
        return "nothing was run"
    if run.status == DagsterRunStatus.SUCCESS:
        return f"run {run_id} had ended"
    instance.report_run_canceled(run, "The command that ran it was stopped by a signal.")
    instance.event_log_storage.free_concurrency_slots_for_run(run_id)
    return f"run {run_id} is cancelled, and the same command begins it again"
