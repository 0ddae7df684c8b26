"""How far a data version got, read off Dagster's own history."""

from collections.abc import Mapping
from dataclasses import dataclass

import dagster as dg
from dagster import AssetCheckKey, AssetKey, DagsterInstance
from dagster._core.event_api import PartitionKeyFilter

from lora_assets.assets.perf_metrics import perf_metrics
from lora_assets.definitions import ASSETS, CHECKS

TIMED = {perf_metrics.key}
"""What is measured by the clock: on a busy machine the same adapter does worse, so that a gate on
it that failed is no last word, and the measurement is made again."""


@dataclass(frozen=True)
class Unfinished:
    """The assets to make and the gates to pass; `stopped_by` is a gate that failed for good."""

    assets: frozenset[AssetKey]
    checks: frozenset[AssetCheckKey]
    stopped_by: str | None


def evaluations(
    instance: DagsterInstance, data_version: str
) -> Mapping[AssetCheckKey, dg.AssetCheckEvaluation]:
    """The newest evaluation of each gate on this data version, in the graph's order."""
    keys = [key for check in CHECKS for key in check.check_keys]
    latest = instance.event_log_storage.get_latest_asset_check_execution_by_key(
        keys, PartitionKeyFilter(key=data_version)
    )
    found: dict[AssetCheckKey, dg.AssetCheckEvaluation] = {}
    for key in keys:
        entry = latest[key].event if key in latest else None
        event = entry.dagster_event if entry else None
        if event and event.event_type_value == "ASSET_CHECK_EVALUATION":
            found[key] = event.asset_check_evaluation_data
    return found


def unfinished(instance: DagsterInstance, data_version: str) -> Unfinished:
    """Hold the whole graph of one data version against its materialisations and verdicts."""
    found = evaluations(instance, data_version)
    passed = {key for key, evaluation in found.items() if evaluation.passed}
    failed = [key for key in found if key not in passed]
    made = {
        asset.key
        for asset in ASSETS
        if data_version in instance.get_materialized_partitions(asset.key)
    }
    again = TIMED & {key.asset_key for key in failed}
    return Unfinished(
        assets=frozenset(again | {asset.key for asset in ASSETS} - made),
        checks=frozenset(k for check in CHECKS for k in check.check_keys if k not in passed),
        stopped_by=next((key.name for key in failed if key.asset_key not in TIMED), None),
    )
