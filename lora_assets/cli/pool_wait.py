"""What a run in this process waits for, and runs whose process is gone."""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Event, Thread

import click
from dagster import DagsterInstance, DagsterRunStatus, RunsFilter
from dagster._core.storage.tags import PARTITION_NAME_TAG
from sqlalchemy.exc import SQLAlchemyError

from lora_assets.assets.pools import SERVING, TRAINING

PROCESS_TAG = "lora_assets/process"
SECONDS_BETWEEN_LOOKS = 2.0


def this_process() -> str:
    """The value of PROCESS_TAG for the runs of this process."""
    return _process(os.getpid())


def _process(pid: int) -> str:
    """Host, number and start of a process, which no later one shares; empty when it is gone."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return ""
    state, *fields = stat.rpartition(")")[2].split()
    # One that was killed stays listed until its parent has asked how it ended.
    return "" if state == "Z" else f"{socket.gethostname()}:{pid}:{fields[18]}"


def fail_runs_of_dead_processes(instance: DagsterInstance) -> None:
    """A killed process leaves its run as started, and the run's pool slots taken.

    Only this machine's processes are judged: the storage may be shared with others.
    """
    unfinished = RunsFilter(statuses=[DagsterRunStatus.STARTED, DagsterRunStatus.STARTING])
    for run in instance.get_runs(unfinished):
        process = run.tags.get(PROCESS_TAG, "")
        host, _, rest = process.partition(":")
        if host == socket.gethostname() and _process(int(rest.partition(":")[0])) != process:
            instance.report_run_failed(run, "Its process is gone; run it again.")
            instance.event_log_storage.free_concurrency_slots_for_run(run.run_id)


@contextmanager
def waiting_told(instance: DagsterInstance, run_id: str) -> Iterator[None]:
    """While the block runs `run_id`, say for whom it waits, and free what dead processes hold."""
    done = Event()

    def watch() -> None:
        told: set[str] = set()
        # A database that fails ends the run as well, which tells of it.
        with suppress(SQLAlchemyError):
            while not done.wait(SECONDS_BETWEEN_LOOKS):
                for holder in _holders(instance, run_id) - told:
                    told.add(holder)
                    click.echo(f"  waiting for {_named(instance, holder)}", err=True)

    watcher = Thread(target=watch)
    watcher.start()
    try:
        yield
    finally:
        done.set()
        watcher.join()


def _holders(instance: DagsterInstance, run_id: str) -> set[str]:
    """The runs that hold what a run waits for, those of dead processes not among them."""
    for pool in (TRAINING, SERVING):
        if run_id in instance.event_log_storage.get_concurrency_info(pool).pending_run_ids:
            fail_runs_of_dead_processes(instance)
            return instance.event_log_storage.get_concurrency_info(pool).active_run_ids
    return set()


def _named(instance: DagsterInstance, run_id: str) -> str:
    """A run as a person knows it."""
    run = instance.get_run_by_id(run_id)
    if run is None:
        return f"run {run_id}"
    data_version = run.tags.get(PARTITION_NAME_TAG, "none")
    return f"{run.job_name} of data version {data_version} (run {run_id[:8]})"
