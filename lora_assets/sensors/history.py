"""Dagster's history of all data versions, in a few queries however many there are."""

from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime
from time import time

import dagster as dg

# Dagster has no public filter for backfills, and without one every tick would read all that ever
# were. dagster#26731, which would have begun a public API for backfills, was closed.
from dagster._core.execution.backfill import BulkActionsFilter, BulkActionStatus

from lora_assets.automation.argo_workflows import (
    SECONDS_WITHOUT_A_RUN,
    WorkflowEnd,
    WorkflowRun,
    owners,
)
from lora_assets.automation.next_run import CAUSE_TAG, Attempts
from lora_assets.lifecycle import STAGES
from lora_assets.records.progress import BACKFILL_TAG, PARTITION_TAG, Progress
from lora_assets.records.run_tags import ARGO_WORKFLOW, PASSED_OVER, WORKFLOW_ENDS, ended_workflow

PHASE_TAG = "lora_assets/phase"

SECONDS_TO_LAUNCH = 600.0
"""A run takes an instant from its record to the queue, however busy the machine."""

_OTHERS = {"SUCCESS", "FAILURE", "CANCELED", "MANAGED"}
_UNDER_WAY = [status for status in dg.DagsterRunStatus if status.value not in _OTHERS]


def gate_keys(assets: Collection[str]) -> Sequence[dg.AssetCheckKey]:
    """Return the keys of the asset checks that are the gates of `assets`."""
    return [
        dg.AssetCheckKey(dg.AssetKey(asset), gate.name)
        for asset in assets
        if (gate := STAGES[asset].gate) is not None
    ]


def unfinished_runs(instance: dg.DagsterInstance) -> Sequence[Mapping[str, str]]:
    """Return the tags of every run that is queued or under way.

    A run that was recorded, but not launched for a while, never will be: its launcher was killed.
    """
    launched_after = time() - SECONDS_TO_LAUNCH
    return [
        record.dagster_run.tags
        for record in instance.get_run_records(dg.RunsFilter(statuses=_UNDER_WAY))
        if record.dagster_run.status != dg.DagsterRunStatus.NOT_STARTED
        or record.create_timestamp.timestamp() > launched_after
    ]


def backfilled(
    instance: dg.DagsterInstance, repository: dg.RepositoryDefinition | None
) -> set[str]:
    """Return the data versions that a backfill under way runs, or has yet to run."""
    statuses = [BulkActionStatus.REQUESTED, BulkActionStatus.CANCELING, BulkActionStatus.FAILING]
    versions: set[str] = set()
    for backfill in instance.get_backfills(filters=BulkActionsFilter(statuses=statuses)):
        versions |= set(backfill.partition_names or ())
        if backfill.is_asset_backfill and repository is not None:
            data = backfill.get_asset_backfill_data(repository.asset_graph)
            targets = data.target_subset.partitions_subsets_by_asset_key.values()
            versions |= {key for target in targets for key in target.get_partition_keys()}
    return versions


def of_workflows(instance: dg.DagsterInstance) -> Mapping[str, str]:
    """Return the data versions that an Argo workflow still works on, with the workflow."""
    now = time()
    recent = datetime.fromtimestamp(now - SECONDS_WITHOUT_A_RUN, UTC)
    runs = [
        WorkflowRun(
            data_version=tags[PARTITION_TAG],
            workflow=tags[ARGO_WORKFLOW],
            created=record.create_timestamp.timestamp(),
            updated=record.update_timestamp.timestamp(),
        )
        for record in instance.get_run_records(dg.RunsFilter(updated_after=recent))
        if {ARGO_WORKFLOW, PARTITION_TAG} <= (tags := record.dagster_run.tags).keys()
    ]
    if not runs:
        return {}
    observed = instance.fetch_observations(
        dg.AssetRecordsFilter(
            asset_key=dg.AssetKey(WORKFLOW_ENDS),
            asset_partitions=sorted({run.data_version for run in runs}),
            after_timestamp=min(run.created for run in runs),
        ),
        limit=1000,
    )
    ends = [
        WorkflowEnd(data_version=str(record.partition_key), workflow=workflow, at=record.timestamp)
        for record in observed.records
        if (seen := record.asset_observation) is not None
        and (workflow := ended_workflow(seen.description)) is not None
    ]
    return owners(runs, ends, now)


def read_progress(
    instance: dg.DagsterInstance, data_versions: Collection[str]
) -> Sequence[Progress]:
    """Return how far each data version got, by one query per asset and gate."""
    storage = instance.event_log_storage
    newest, kinds = storage.get_latest_storage_id_by_partition, dg.DagsterEventType
    made = {asset: newest(dg.AssetKey(asset), kinds.ASSET_MATERIALIZATION) for asset in STAGES}
    baseline = newest(dg.AssetKey("training_data"), kinds.ASSET_OBSERVATION)
    verdicts: dict[str, dict[str, bool]] = {}
    for info in storage.get_asset_check_partition_info(gate_keys(STAGES)):
        status = info.latest_execution_status.value
        decided = status in ("SUCCEEDED", "FAILED") and info.is_current
        if decided and info.partition_key is not None:
            verdicts.setdefault(info.partition_key, {})[info.check_key.name] = status == "SUCCEEDED"
    return [
        Progress(
            data_version=version,
            made={asset: ids[version] for asset, ids in made.items() if version in ids},
            verdicts=verdicts.get(version, {}),
            baseline_event_id=baseline.get(version),
        )
        for version in data_versions
    ]


def events(
    instance: dg.DagsterInstance, run_id: str, kind: dg.DagsterEventType
) -> Sequence[dg.DagsterEvent]:
    """Return the events of one kind in a run, in its order."""
    records = instance.get_records_for_run(run_id, of_type=kind).records
    return [record.event_log_entry.get_dagster_event() for record in records]


def evaluations(instance: dg.DagsterInstance, run_id: str) -> Sequence[dg.AssetCheckEvaluation]:
    """Return what the gates of a run decided, in its order."""
    decided = events(instance, run_id, dg.DagsterEventType.ASSET_CHECK_EVALUATION)
    return [event.asset_check_evaluation_data for event in decided]


def _runs_by(
    instance: dg.DagsterInstance, tag: str, values: Collection[str], *statuses: dg.DagsterRunStatus
) -> Mapping[str, Sequence[dg.RunRecord]]:
    """Return the runs whose `tag` has one of the values, by value, the newest first."""
    runs: dict[str, list[dg.RunRecord]] = {}
    filters = dg.RunsFilter(tags={tag: list(values)}, statuses=statuses)
    for record in instance.get_run_records(filters) if values else ():
        runs.setdefault(record.dagster_run.tags[tag], []).append(record)
    return runs


def cancelled(instance: dg.DagsterInstance, data_versions: Collection[str]) -> set[str]:
    """Return those of the data versions whose newest run, whoever launched it, was cancelled."""
    status = dg.DagsterRunStatus.CANCELED
    once = _runs_by(instance, PARTITION_TAG, data_versions, status)
    runs = _runs_by(instance, PARTITION_TAG, once)
    return {version for version in once if runs[version][0].dagster_run.status == status}


def to_be_promoted(instance: dg.DagsterInstance, data_versions: Collection[str]) -> set[str]:
    """Return those of the data versions that a backfill was to promote, and passed over."""
    tags = {PARTITION_TAG: list(data_versions), **PASSED_OVER}
    runs = instance.get_runs(dg.RunsFilter(tags=tags)) if data_versions else ()
    return {run.tags[PARTITION_TAG] for run in runs if BACKFILL_TAG in run.tags}


def attempts(instance: dg.DagsterInstance, causes: Collection[str]) -> Mapping[str, Attempts]:
    """Return the runs that were launched for these causes."""
    by_cause = _runs_by(instance, CAUSE_TAG, causes)
    return {
        cause: Attempts(
            launched=len(records),
            since_last=time() - records[0].update_timestamp.timestamp(),
            last_was_cancelled=records[0].dagster_run.status == dg.DagsterRunStatus.CANCELED,
            waits_for_dagster=records[0].dagster_run.is_complete_and_waiting_to_retry,
        )
        for cause, records in by_cause.items()
    }
