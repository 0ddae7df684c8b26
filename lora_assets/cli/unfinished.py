"""What is left to do of a data version, from Dagster's history."""

from collections.abc import Mapping
from dataclasses import dataclass

import dagster as dg
from dagster import AssetCheckKey, AssetKey, DagsterInstance

from lora_assets.assets.perf_metrics import perf_metrics
from lora_assets.lifecycle import STAGES
from lora_assets.sensors import history

TIMED = {perf_metrics.key}
"""Assets that are measured by the clock. On a busy machine the same adapter does worse, so a
failed gate on one is not final: the measurement is repeated."""


@dataclass(frozen=True)
class Unfinished:
    """The assets to make and the gates to pass; `stopped_by` is a gate that failed for good."""

    assets: frozenset[AssetKey]
    checks: frozenset[AssetCheckKey]
    stopped_by: str | None


def evaluations(
    instance: DagsterInstance, data_version: str
) -> Mapping[AssetCheckKey, dg.AssetCheckEvaluation]:
    """Return the newest evaluation of each gate on this data version, in the graph's order."""
    keys = history.gate_keys(STAGES)
    infos = instance.event_log_storage.get_asset_check_partition_info(
        keys, partition_keys=[data_version]
    )
    run_ids = {info.check_key: info.latest_planned_run_id for info in infos}
    of_runs = {run_id: history.evaluations(instance, run_id) for run_id in set(run_ids.values())}
    return {
        key: evaluation
        for key in keys
        if key in run_ids
        for evaluation in of_runs[run_ids[key]]
        if evaluation.asset_check_key == key
    }


def unfinished(instance: DagsterInstance, data_version: str) -> Unfinished:
    """Compare the whole graph with what one data version has made and passed."""
    newest = evaluations(instance, data_version)
    passed = {key for key, evaluation in newest.items() if evaluation.passed}
    failed = [key for key in newest if key not in passed]
    assets = {AssetKey(asset) for asset in STAGES}
    made = {key for key in assets if data_version in instance.get_materialized_partitions(key)}
    again = TIMED & {key.asset_key for key in failed}
    return Unfinished(
        assets=frozenset(again | assets - made),
        checks=frozenset(history.gate_keys(STAGES)) - passed,
        stopped_by=next((key.name for key in failed if key.asset_key not in TIMED), None),
    )
