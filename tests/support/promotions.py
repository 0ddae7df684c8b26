"""Versions that earned their promotion, and the runs that judge and promote them."""

from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import dagster as dg

from lora_assets.assets.eval_grades import eval_grades
from lora_assets.assets.graph import data_versions
from lora_assets.assets.live_deployment import live_deployment
from lora_assets.assets.perf_metrics import perf_metrics
from lora_assets.assets.rollback import rollback
from lora_assets.assets.staged_deployment import staged_deployment
from lora_assets.assets.training_data import training_data
from lora_assets.embedded.data_set.versions import contents
from lora_assets.gates.promotion import required_gates
from lora_assets.records.load import PerfMetrics
from lora_assets.records.model_version import ModelVersion
from lora_assets.records.partition import data_version_of
from lora_assets.resources.registry import Registry
from lora_assets.stack_resources import Resources
from tests.support.records import passed_verdict
from tests.support.stack import trained

ROWS = 6


@dg.asset(partitions_def=data_versions)
def gate_result(context: dg.AssetExecutionContext, registry: Registry) -> ModelVersion:
    version = registry.newest(data_version_of(context.partition_key))
    assert version is not None
    return version


def take_through(resources: Resources, partition: str, **load_test: Any) -> PerfMetrics:
    """Deploy, evaluate, load-test (so configured) and promote, naming no slot."""
    whole = contents(["s3"])
    first_rows = {name: b"".join(whole[name].splitlines(True)[:ROWS]) for name in whole}
    resources.data_bucket.add(data_version_of(partition), first_rows)
    with dg.DagsterInstance.ephemeral() as instance:
        instance.add_dynamic_partitions("data_version", [partition])
        before = [training_data, gate_result, staged_deployment]
        result = dg.materialize(
            [*before, eval_grades, perf_metrics, live_deployment],
            instance=instance,
            partition_key=partition,
            resources=vars(resources),
            run_config={"ops": {"perf_metrics": {"config": load_test}}},
        )
        metrics: PerfMetrics = result.output_for_node("perf_metrics")
    return metrics


def run_promotion(
    resources: Resources,
    data_version: str,
    run_id: str | None = None,
    tags: Mapping[str, str] | None = None,
    **config: Any,
) -> dg.ExecuteInProcessResult:
    definitions = dg.Definitions(
        assets=[live_deployment],
        resources=vars(resources),
        jobs=[dg.define_asset_job("promote", [live_deployment])],
    )
    # Closed by its own thread: SQLite refuses to have a connection closed by another one.
    with dg.DagsterInstance.ephemeral() as instance:
        instance.add_dynamic_partitions("data_version", [data_version])
        return definitions.resolve_job_def("promote").execute_in_process(
            instance=instance,
            partition_key=data_version,
            run_id=run_id,
            tags=tags,
            run_config={"ops": {"live_deployment": {"config": config}}},
        )


def promote(resources: Resources, data_version: str, **run: Any) -> ModelVersion:
    result = run_promotion(resources, data_version, **run)
    version: ModelVersion = result.output_for_node("live_deployment")
    return version


def roll_back(
    resources: Resources, instance: dg.DagsterInstance | None = None, **config: Any
) -> dg.ExecuteInProcessResult:
    """Launch Dagster's job `rollback`, without a partition."""
    return launch_rollback(resources, {"ops": {"roll_back": {"config": config}}}, instance)


def launch_rollback(
    resources: Resources,
    run_config: Mapping[str, Any],
    instance: dg.DagsterInstance | None = None,
) -> dg.ExecuteInProcessResult:
    definitions = dg.Definitions(jobs=[rollback], resources=vars(resources))
    with nullcontext(instance) if instance else dg.DagsterInstance.ephemeral() as opened:
        job = definitions.resolve_job_def("rollback")
        return job.execute_in_process(instance=opened, run_config=run_config)


def stage(resources: Resources, folder: Path, data_version: str) -> ModelVersion:
    """Register an adapter with every verdict passed against what is live, and stage it."""
    registry = resources.registry
    version = registry.register(trained(resources, folder, data_version))
    live = registry.aliases().get("live")
    for gate in required_gates("staged"):
        verdict = passed_verdict(gate.name, version, live, vllm_url=resources.fleet.address)
        registry.store_verdict(version, verdict)
    registry.set_alias("staged", version)
    registry.set_alias("perf-passed", version)
    return version


def aliases(resources: Resources) -> dict[str, int]:
    return {alias: v.version for alias, v in resources.registry.aliases().items()}
