"""The code location: the graph, its jobs, and the stack that it runs on."""

import dagster as dg

from lora_assets import assets
from lora_assets.assets.rollback import roll_back, rollback
from lora_assets.kubernetes.executor import make_executor
from lora_assets.kubernetes.lost_pods import retry_lost_pods
from lora_assets.lifecycle import ABOUT_JOBS, JOBS
from lora_assets.local.console import progress_logger
from lora_assets.sensors.new_data_versions import new_data_versions
from lora_assets.sensors.notices import notices
from lora_assets.sensors.replica_repair import repair, repair_replicas, replica_repair
from lora_assets.settings import Settings, read_settings
from lora_assets.stack_resources import make_resources, secrets_by_name

ASSETS = [
    asset
    for asset in dg.load_assets_from_package_module(assets)
    if isinstance(asset, dg.AssetsDefinition)
]
CHECKS = dg.load_asset_checks_from_package_module(assets)


def make_definitions(settings: Settings) -> dg.Definitions:
    """Return the graph on the stack that these settings describe."""
    jobs = [
        dg.define_asset_job(job, made, description=ABOUT_JOBS[job]) for job, made in JOBS.items()
    ]
    in_pods = settings.executor == "k8s_job"
    steps = [
        op.name for op in (*(definition.op for definition in (*ASSETS, *CHECKS)), repair, roll_back)
    ]
    resources = make_resources(secrets_by_name(settings))
    s3 = resources.data_bucket.s3
    return dg.Definitions(
        assets=[retry_lost_pods(asset) for asset in ASSETS] if in_pods else ASSETS,
        asset_checks=[retry_lost_pods(check) for check in CHECKS] if in_pods else CHECKS,
        jobs=[*jobs, rollback, repair_replicas],
        # On one machine nobody asked for its runs; a fleet needs somebody to look after it.
        sensors=[new_data_versions, notices, replica_repair(is_on=not settings.embedded)],
        resources=vars(resources) | ({"s3": s3} if s3 else {}),
        loggers={"console": progress_logger},
        executor=make_executor(settings.executor, settings.step_pods, steps),
    )


defs = make_definitions(read_settings())
