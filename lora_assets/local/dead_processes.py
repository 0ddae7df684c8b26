"""Runs of the command line whose process is gone: nothing else ends them."""

import os
import socket
from pathlib import Path

from dagster import DagsterInstance, DagsterRunStatus, RunsFilter

PROCESS_TAG = "lora_assets/process"


def this_process() -> str:
    """Return the value of PROCESS_TAG for the runs of this process."""
    return _process(os.getpid())


def _process(pid: int) -> str:
    """Return a process's host, number and start, which no later one shares; empty if it is gone."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return ""
    state, *fields = stat.rpartition(")")[2].split()
    # A killed process stays listed until its parent has read its exit status.
    return "" if state == "Z" else f"{socket.gethostname()}:{pid}:{fields[18]}"


def fail_runs_of_dead_processes(instance: DagsterInstance) -> None:
    """Fail the runs that killed processes left as started, and free their pool slots.

    Only this machine's processes are judged: the storage may be shared with others.
    """
    unfinished = RunsFilter(statuses=[DagsterRunStatus.STARTED, DagsterRunStatus.STARTING])
    for run in instance.get_runs(unfinished):
        if run.parent_run_id is not None:
            continue  # Launched again from Dagster's UI, with the tags of the first.
        process = run.tags.get(PROCESS_TAG, "")
        host, _, rest = process.partition(":")
        if host == socket.gethostname() and _process(int(rest.partition(":")[0])) != process:
            instance.report_run_failed(run, "Its process is gone; run it again.")
            instance.event_log_storage.free_concurrency_slots_for_run(run.run_id)
