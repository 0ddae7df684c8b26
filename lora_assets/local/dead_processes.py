"""Runs of the command line whose process is gone: nothing else ends them."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

from dagster import DagsterInstance, DagsterRunStatus, RunsFilter
from filelock import FileLock, Timeout

from lora_assets.local.code_location import show_in_location

PROCESS_TAG = "lora_assets/process"


@contextmanager
def living(instance: DagsterInstance) -> Iterator[str]:
    """Yield the value of PROCESS_TAG for a run of the block: a lock's name.

    The system takes the lock from a process that is killed. Every container that has the folder
    sees that, whereas another PID namespace doesn't show which processes live.
    """
    name = uuid4().hex
    lock = _lock(instance, name)
    lock.parent.mkdir(exist_ok=True)
    with FileLock(lock):
        try:
            yield name
        finally:
            lock.unlink()


def fail_runs_of_dead_processes(instance: DagsterInstance) -> None:
    """Fail the runs that killed processes left as started, and free their pool slots.

    Those whose lock lies elsewhere are not judged: the storage may be shared with other machines.
    """
    unfinished = RunsFilter(statuses=[DagsterRunStatus.STARTED, DagsterRunStatus.STARTING])
    for run in instance.get_runs(unfinished):
        lock = _lock(instance, run.tags.get(PROCESS_TAG, ""))
        # One with a parent was launched again from Dagster's UI, with the tags of the first.
        if run.parent_run_id is not None or not lock.is_file():
            continue
        try:
            with FileLock(lock, timeout=0):
                # It may have ended since it was listed, and its process with it.
                now = instance.get_run_by_id(run.run_id)
                if now is not None and not now.is_finished:
                    instance.report_run_failed(now, "Its process is gone; run it again.")
                    show_in_location(instance, run.run_id)
                    instance.event_log_storage.free_concurrency_slots_for_run(run.run_id)
                lock.unlink()
        except Timeout:
            continue


def _lock(instance: DagsterInstance, name: str) -> Path:
    # Whoever may start runs sets their tags: a name that leads elsewhere is cut to its last part.
    return Path(instance.root_directory, "processes", Path(name).name)
