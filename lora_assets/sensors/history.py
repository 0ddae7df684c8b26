"""Dagster's own history of all data versions, in a few queries whatever their number."""

from collections.abc import Collection, Mapping, Sequence
from time import time

import dagster as dg
from dagster._core.execution.backfill import BulkActionsFilter, BulkActionStatus
from dagster._core.storage.asset_check_execution_record import AssetCheckExecutionRecordStatus
from dagster._core.storage.dagster_run import NOT_FINISHED_STATUSES
from dagster._core.storage.tags import BACKFILL_ID_TAG, PARTITION_NAME_TAG

from lora_assets.assets.run_tags import PASSED_OVER
from lora_assets.automation.next_run import CAUSE_TAG, GATE_OF, Attempts, Phase
from lora_assets.records.progress import Progress

PHASE_TAG = "lora_assets/phase"

SECONDS_TO_LAUNCH = 600.0
"""From a run's record to its place in the queue: an instant, however busy the machine."""

_DECISIONS = {
    AssetCheckExecutionRecordStatus.SUCCEEDED: True,
    AssetCheckExecutionRecordStatus.FAILED: False,
}


def gate_key(asset: str, gate: str) -> dg.AssetCheckKey:
    """The asset check that is a gate."""
    return dg.AssetCheckKey(dg.AssetKey(asset), gate)


def unfinished_runs(instance: dg.DagsterInstance) -> Sequence[Mapping[str, str]]:
    """The tags of every run that is queued or under way.

    One that was made, but not launched since, never will be: what made it was killed in between.
    """
    found = instance.get_run_records(dg.RunsFilter(statuses=NOT_FINISHED_STATUSES))
    made_after = time() - SECONDS_TO_LAUNCH
    return [
        record.dagster_run.tags
        for record in found
        if record.dagster_run.status != dg.DagsterRunStatus.NOT_STARTED
        or record.create_timestamp.timestamp() > made_after
    ]


def backfilled(
    instance: dg.DagsterInstance, repository: dg.RepositoryDefinition | None
) -> set[str]:
    """The data versions that a backfill under way is still to run, or runs."""
    statuses = [
        BulkActionStatus.REQUESTED,
        BulkActionStatus.CANCELING,
        BulkActionStatus.FAILING,
    ]
    found: set[str] = set()
    for backfill in instance.get_backfills(filters=BulkActionsFilter(statuses=statuses)):
        found |= set(backfill.partition_names or ())
        if backfill.is_asset_backfill and repository is not None:
            data = backfill.get_asset_backfill_data(repository.asset_graph)
            targets = data.target_subset.partitions_subsets_by_asset_key.values()
            found |= {key for target in targets for key in target.get_partition_keys()}
    return found


def busy(runs: Sequence[Mapping[str, str]]) -> set[str]:
    """The data versions that a run is working on."""
    return {tags[PARTITION_NAME_TAG] for tags in runs if PARTITION_NAME_TAG in tags}


def is_running(runs: Sequence[Mapping[str, str]], phase: Phase) -> bool:
    """Whether a run of the phase, launched by the sensor, is under way."""
    return any(tags.get(PHASE_TAG) == phase for tags in runs)


def read_progress(
    instance: dg.DagsterInstance, data_versions: Collection[str]
) -> Sequence[Progress]:
    """How far each data version got: one query per asset and gate."""
    storage = instance.event_log_storage
    made = {
        asset: storage.get_latest_storage_id_by_partition(
            dg.AssetKey(asset), dg.DagsterEventType.ASSET_MATERIALIZATION
        )
        for asset in GATE_OF
    }
    noted = storage.get_latest_storage_id_by_partition(
        dg.AssetKey("training_data"), dg.DagsterEventType.ASSET_OBSERVATION
    )
    gates = [gate_key(asset, gate) for asset, gate in GATE_OF.items() if gate is not None]
    verdicts: dict[str, dict[str, bool]] = {}
    for info in storage.get_asset_check_partition_info(gates):
        decision = _DECISIONS.get(info.latest_execution_status)
        if decision is not None and info.is_current and info.partition_key is not None:
            verdicts.setdefault(info.partition_key, {})[info.check_key.name] = decision
    return [
        Progress(
            data_version=version,
            made={asset: ids[version] for asset, ids in made.items() if version in ids},
            verdicts=verdicts.get(version, {}),
            noted=noted.get(version),
        )
        for version in data_versions
    ]


def cancelled(instance: dg.DagsterInstance, data_versions: Collection[str]) -> set[str]:
    """Those of the data versions whose newest run, whoever launched it, was cancelled."""
    if not data_versions:
        return set()
    of_them = {PARTITION_NAME_TAG: list(data_versions)}
    ended = dg.RunsFilter(tags=of_them, statuses=[dg.DagsterRunStatus.CANCELED])
    once = {run.tags[PARTITION_NAME_TAG] for run in instance.get_runs(ended)}
    if not once:
        return set()
    newest: dict[str, dg.DagsterRunStatus] = {}
    for run in instance.get_runs(dg.RunsFilter(tags={PARTITION_NAME_TAG: list(once)})):
        newest.setdefault(run.tags[PARTITION_NAME_TAG], run.status)
    return {version for version in once if newest[version] == dg.DagsterRunStatus.CANCELED}


def asked_for(instance: dg.DagsterInstance, data_versions: Collection[str]) -> set[str]:
    """Those whose promotion a backfill was to make, and passed over."""
    if not data_versions:
        return set()
    tags = {PARTITION_NAME_TAG: list(data_versions), **PASSED_OVER}
    runs = instance.get_runs(dg.RunsFilter(tags=tags))
    return {run.tags[PARTITION_NAME_TAG] for run in runs if BACKFILL_ID_TAG in run.tags}


def attempts(instance: dg.DagsterInstance, causes: Collection[str]) -> Mapping[str, Attempts]:
    """The runs that were launched for these causes."""
    if not causes:
        return {}
    newest_first = instance.get_run_records(dg.RunsFilter(tags={CAUSE_TAG: list(causes)}))
    found: dict[str, list[dg.RunRecord]] = {}
    for record in newest_first:
        found.setdefault(record.dagster_run.tags[CAUSE_TAG], []).append(record)
    return {
        cause: Attempts(
            launched=len(records),
            since_last=time() - records[0].update_timestamp.timestamp(),
            last_was_cancelled=records[0].dagster_run.status == dg.DagsterRunStatus.CANCELED,
            waits_for_dagster=records[0].dagster_run.is_complete_and_waiting_to_retry,
        )
        for cause, records in found.items()
    }
