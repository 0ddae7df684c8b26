"""Versions that earned their promotion, and the run that promotes them."""

from pathlib import Path
from typing import Any

import dagster as dg

from lora_assets.assets.live_deployment import live_deployment
from lora_assets.environment import Resources
from lora_assets.gates.promotion import ALL_GATES
from lora_assets.records.registry import ModelVersion
from tests.conftest import passed_verdict, trained


def promote(
    resources: Resources, data_version: str, run_id: str | None = None, **config: Any
) -> ModelVersion:
    instance = dg.DagsterInstance.ephemeral()
    instance.add_dynamic_partitions("data_version", [data_version])
    definitions = dg.Definitions(
        assets=[live_deployment],
        resources=vars(resources),
        jobs=[dg.define_asset_job("promote", [live_deployment])],
    )
    result = definitions.resolve_job_def("promote").execute_in_process(
        instance=instance,
        partition_key=data_version,
        run_id=run_id,
        run_config={"ops": {"live_deployment": {"config": config}}},
    )
    version: ModelVersion = result.output_for_node("live_deployment")
    return version


def stage(resources: Resources, folder: Path, data_version: str) -> ModelVersion:
    """Register an adapter with every verdict passed against what is live, and stage it."""
    registry = resources.registry
    version = registry.register(trained(resources, folder, data_version))
    live = registry.aliases().get("live")
    for gate in ALL_GATES:
        registry.store_verdict(version, passed_verdict(gate, version, live))
    registry.set_alias("staged", version)
    registry.set_alias("perf-passed", version)
    return version


def aliases(resources: Resources) -> dict[str, int]:
    return {alias: v.version for alias, v in resources.registry.aliases().items()}
