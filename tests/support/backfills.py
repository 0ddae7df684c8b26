"""A backfill of the whole graph, as Dagster's UI asks for it."""

from collections.abc import Sequence
from time import time

import dagster as dg
from dagster._core.execution.backfill import PartitionBackfill

from lora_assets.lifecycle import STAGES


def requested(
    instance: dg.DagsterInstance,
    definitions: dg.Definitions,
    backfill_id: str,
    data_versions: Sequence[str],
) -> PartitionBackfill:
    """Not stored yet."""
    return PartitionBackfill.from_asset_partitions(
        backfill_id=backfill_id,
        asset_graph=definitions.resolve_asset_graph(),
        partition_names=data_versions,
        asset_selection=[dg.AssetKey(asset) for asset in STAGES],
        backfill_timestamp=time(),
        tags={},
        dynamic_partitions_store=instance,
        all_partitions=False,
        title=None,
        description=None,
        run_config=None,
    )
