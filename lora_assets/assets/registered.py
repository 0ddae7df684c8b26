"""An adapter that was trained elsewhere, in the place of a training."""

from collections.abc import Sequence
from pathlib import Path

import dagster as dg

from lora_assets.assets.adapter_page import final_numbers
from lora_assets.assets.pages import show
from lora_assets.errors import LoraAssetsError
from lora_assets.records.dataset import Row, TrainingData
from lora_assets.records.training import Adapter, TrainingParameters
from lora_assets.resources.registry import ARTIFACT
from lora_assets.resources.tracking import Tracking
from lora_assets.resources.trainer import Trainer
from lora_assets.serving import adapter_files

RECORD, REGISTERED = "trained", "registered"
"""What a training, and what `lora-assets register`, leaves in its MLflow run: an Adapter."""


def registered_adapter(
    context: dg.AssetExecutionContext,
    run_id: str,
    data: TrainingData,
    rows: Sequence[Row],
    parameters: TrainingParameters,
    trainer: Trainer,
    tracking: Tracking,
    folder: Path,
) -> Adapter:
    """Return what a registration left in an MLflow run; without losses, measure them on `rows`.

    Its files are fetched into `folder`. Refused where they have changed, or the data have.
    """
    adapter = tracking.record(run_id, REGISTERED, Adapter)
    if (adapter.data_version, adapter.data_digest) != (data.data_version, data.digest):
        raise LoraAssetsError(
            f"MLflow run {run_id} is of an adapter on other data "
            f"(data version {adapter.data_version}, digest {adapter.data_digest[:12]})",
            f"Register it for data version {data.data_version}.",
        )
    stored = tracking.download(run_id, ARTIFACT, folder)
    adapter_files.verify(stored, adapter.digest)
    run = tracking.reopen(run_id)
    if not adapter.metrics.given:
        context.log.info(f"measuring adapter {adapter.digest[:12]} on the val split")
        losses = trainer.measure(rows, stored, parameters, context.log.info)
        measured = {"metrics": losses, "base": trainer.base_identity()}
        adapter = adapter.model_copy(update=measured)
    losses = adapter.metrics
    shown = final_numbers(losses)
    run.metrics(shown)
    context.log.info(f"adapter {adapter.digest[:12]} was trained elsewhere")
    pages = {
        "losses": "given" if losses.given else "measured on the val split",
        "mlflow run": dg.MetadataValue.url(tracking.page(run_id)),
        "digest": adapter.digest,
        "rows left out": dg.MetadataValue.json(dict(losses.rows_left_out)),
    }
    facts = [f"{name.replace('_', ' ')} {value:.4g}" for name, value in shown.items()]
    show(context, ("trained elsewhere", *facts), {**pages, **shown})
    return adapter
