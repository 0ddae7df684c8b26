"""What a run in this process waits for."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from threading import Event, Thread

import click
from dagster import DagsterInstance
from sqlalchemy.exc import SQLAlchemyError

from lora_assets.assets.pools import SERVING, TRAINING
from lora_assets.local.dead_processes import fail_runs_of_dead_processes
from lora_assets.records.progress import PARTITION_TAG

SECONDS_BETWEEN_LOOKS = 2.0


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
    data_version = run.tags.get(PARTITION_TAG, "none")
    return f"{run.job_name} of data version {data_version} (run {run_id[:8]})"
