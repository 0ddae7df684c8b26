"""Stage 3: the model version that passed the quality gate."""

import dagster as dg

from lora_assets.assets.graph import SERVING, stage_asset
from lora_assets.assets.pages import pages_of, show
from lora_assets.assets.verdicts import require_passed
from lora_assets.records.model_version import ModelVersion
from lora_assets.records.training import Adapter
from lora_assets.resources.registry import ARTIFACT, Registry
from lora_assets.resources.work_folder import WorkFolder
from lora_assets.serving import adapter_files


@stage_asset("training", {"mlflow"}, "quality-gate", pool=SERVING)
def gate_result(
    context: dg.AssetExecutionContext, adapter: Adapter, registry: Registry, work_folder: WorkFolder
) -> ModelVersion:
    """Register the adapter that passed the quality gate, and point `candidate` at it."""
    stored_verdict = registry.tracking.verdict(adapter.mlflow_run_id, "quality_gate")
    verdict = require_passed(stored_verdict, "quality_gate", adapter.digest, adapter.data_version)
    with work_folder.temporary() as folder:
        stored = registry.tracking.download(adapter.mlflow_run_id, ARTIFACT, folder)
        adapter_files.verify(stored, adapter.digest)
    version = registry.register(adapter)
    registry.store_verdict(version, verdict)
    registry.set_alias("candidate", version)
    context.log.info(f"version {version.version} of {version.model} is candidate")
    show(context, (f"version {version.version} is candidate",), pages_of(registry, version))
    return version
