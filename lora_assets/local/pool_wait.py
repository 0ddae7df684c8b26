"""What a run in this process waits for."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from threading import Event, Thread, get_ident

from dagster import DagsterInstance
from sqlalchemy.exc import SQLAlchemyError

from lora_assets.assets.graph import POOLS
from lora_assets.local.dead_processes import fail_runs_of_dead_processes
from lora_assets.local.stopping import interrupt
from lora_assets.local.terminal import say
from lora_assets.records.progress import PARTITION_TAG

SECONDS_BETWEEN_LOOKS = 2.0


@contextmanager
def report_waiting(
    instance: DagsterInstance, run_id: str, stopped: Callable[[], int | None]
) -> Iterator[None]:
    """While the block runs `run_id`, report which runs it waits for; end the wait if `stopped`.

    Slots that dead processes hold are freed.
    """
    done, waiting = Event(), get_ident()

    def watch() -> None:
        reported: set[str] = set()
        # A database that fails ends the run as well, with its own error.
        with suppress(SQLAlchemyError):
            while not done.wait(SECONDS_BETWEEN_LOOKS):
                holders = _holders(instance, run_id)
                if holders and stopped() is not None:
                    return interrupt(waiting)
                for holder in holders - reported:
                    reported.add(holder)
                    say(f"  waiting for {_named(instance, holder)}")

    watcher = Thread(target=watch)
    watcher.start()
    try:
        yield
    finally:
        done.set()
        watcher.join()


def _holders(instance: DagsterInstance, run_id: str) -> set[str]:
    """Return the runs that hold what a run waits for, but for those of dead processes."""
    for pool in POOLS:
        if run_id in instance.event_log_storage.get_concurrency_info(pool).pending_run_ids:
            fail_runs_of_dead_processes(instance)
            return instance.event_log_storage.get_concurrency_info(pool).active_run_ids
    return set()


def _named(instance: DagsterInstance, run_id: str) -> str:
    """Return a run's job, data version and id."""
    run = instance.get_run_by_id(run_id)
    if run is None:
        return f"run {run_id}"
    data_version = run.tags.get(PARTITION_TAG, "none")
    return f"{run.job_name} of data version {data_version} (run {run_id[:8]})"
