"""How far a data version got, read off Dagster's own history."""

from collections.abc import Mapping
from dataclasses import dataclass

import dagster as dg
from dagster import AssetCheckKey, AssetKey, DagsterInstance
from dagster._core.event_api import PartitionKeyFilter

from lora_assets.definitions import ASSETS, CHECKS


@dataclass(frozen=True)
class Unfinished:
    """The assets not made and the gates not passed yet; `stopped_by` is a gate that failed."""

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
    return Unfinished(
        assets=frozenset(
            asset.key
            for asset in ASSETS
            if data_version not in instance.get_materialized_partitions(asset.key)
        ),
        checks=frozenset(k for check in CHECKS for k in check.check_keys if k not in passed),
        stopped_by=next((key.name for key in found if key not in passed), None),
    )
