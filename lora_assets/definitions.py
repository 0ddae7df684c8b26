"""The code location: the graph, its jobs, and the stack that it runs on."""

import dagster as dg

from lora_assets.assets.adapter import adapter, quality_gate
from lora_assets.assets.eval_grades import eval_gate, eval_grades
from lora_assets.assets.gate_result import gate_result
from lora_assets.assets.live_deployment import live_deployment
from lora_assets.assets.perf_metrics import perf_gate, perf_metrics
from lora_assets.assets.staged_deployment import smoke_test, staged_deployment
from lora_assets.assets.training_data import data_is_sound, training_data
from lora_assets.cli.progress import progress_logger
from lora_assets.environment import Settings, make_resources, read_settings
from lora_assets.sensors.new_data_versions import new_data_versions
from lora_assets.sensors.notices import notices
from lora_assets.sensors.replica_repair import repair_replicas, replica_repair

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

JOBS = tuple(
    dg.define_asset_job(name, dg.AssetSelection.assets(*selected))
    for name, selected in {
        "lifecycle": ASSETS,
        "train": (training_data, adapter, gate_result),
        "deploy": (staged_deployment,),
        "evaluate": (eval_grades,),
        "performance": (perf_metrics,),
        "promote": (live_deployment,),
    }.items()
)


def make_definitions(settings: Settings) -> dg.Definitions:
    """The graph on the stack that these settings describe."""
    return dg.Definitions(
        assets=ASSETS,
        asset_checks=CHECKS,
        jobs=[*JOBS, repair_replicas],
        sensors=[new_data_versions, notices, replica_repair],
        resources=vars(make_resources(settings)),
        loggers={"console": progress_logger},
        executor=dg.in_process_executor,
    )


defs = make_definitions(read_settings())
