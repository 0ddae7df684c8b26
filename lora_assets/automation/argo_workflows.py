"""Which data versions belong to an Argo workflow, which goes on with them by itself."""

from collections.abc import Iterable, Mapping

from lora_assets.records import Record

SECONDS_WITHOUT_A_RUN = 7200.0
"""A workflow that starts nothing for so long died, or its exit handler could not reach Dagster."""


class WorkflowRun(Record):
    """A run that a workflow launched on a data version; times in seconds since 1970."""

    data_version: str
    workflow: str
    created: float
    updated: float


class WorkflowEnd(Record):
    """What a workflow's exit handler reported: it has ended with a data version."""

    data_version: str
    workflow: str
    at: float


def owners(
    runs: Iterable[WorkflowRun], ends: Iterable[WorkflowEnd], now: float
) -> Mapping[str, str]:
    """Return the data versions that a workflow still works on, with the workflow.

    An end counts for the runs before it: `argo retry` goes on under the same name.
    """
    ended = {(end.data_version, end.workflow): end.at for end in sorted(ends, key=lambda e: e.at)}
    return {
        run.data_version: run.workflow
        for run in runs
        if now - run.updated < SECONDS_WITHOUT_A_RUN
        and run.created > ended.get((run.data_version, run.workflow), 0)
    }
