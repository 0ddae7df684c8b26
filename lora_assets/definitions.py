"""The code location: the graph, its jobs, and the stack that it runs on."""

import dagster as dg

from lora_assets.assets.adapter import adapter, quality_gate
from lora_assets.assets.eval_grades import eval_gate, eval_grades
from lora_assets.assets.gate_result import gate_result
from lora_assets.assets.live_deployment import live_deployment
from lora_assets.assets.perf_metrics import perf_gate, perf_metrics
from lora_assets.assets.staged_deployment import smoke_test, staged_deployment
from lora_assets.assets.training_data import data_is_sound, training_data
from lora_assets.kubernetes.executor import make_executor
from lora_assets.kubernetes.lost_pods import retry_lost_pods
from lora_assets.lifecycle import JOBS
from lora_assets.local.console import progress_logger
from lora_assets.sensors.new_data_versions import new_data_versions
from lora_assets.sensors.notices import notices
from lora_assets.sensors.replica_repair import repair, repair_replicas, replica_repair
from lora_assets.settings import Settings, read_settings
from lora_assets.stack_resources import make_resources, secrets_by_name

ASSETS = (
    training_data,
    adapter,
    gate_result,
    staged_deployment,
    eval_grades,
    perf_metrics,
    live_deployment,
)
CHECKS = (data_is_sound, quality_gate, smoke_test, eval_gate, perf_gate)


def make_definitions(settings: Settings) -> dg.Definitions:
    """Return the graph on the stack that these settings describe."""
    jobs = [
        dg.define_asset_job(job, dg.AssetSelection.assets(*assets)) for job, assets in JOBS.items()
    ]
    in_pods = settings.executor == "k8s_job"
    steps = [op.name for op in (*(definition.op for definition in (*ASSETS, *CHECKS)), repair)]
    return dg.Definitions(
        assets=[retry_lost_pods(asset) for asset in ASSETS] if in_pods else ASSETS,
        asset_checks=[retry_lost_pods(check) for check in CHECKS] if in_pods else CHECKS,
        jobs=[*jobs, repair_replicas],
        sensors=[new_data_versions, notices, replica_repair],
        resources=vars(make_resources(secrets_by_name(settings))),
        loggers={"console": progress_logger},
        executor=make_executor(settings.executor, settings.step_pods, steps),
    )


defs = make_definitions(read_settings())
