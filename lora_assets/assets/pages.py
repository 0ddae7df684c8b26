"""What the assets show in Dagster's UI, on their pages and in a run's log."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import dagster as dg

from lora_assets.assets.run_tags import origin
from lora_assets.records.model_version import ModelVersion
from lora_assets.resources.registry import Registry
from lora_assets.resources.tracking import Tracking


def table(rows: Iterable[Mapping[str, Any]]) -> dg.TableMetadataValue:
    """Return rows as a table, each with the same columns."""
    return dg.MetadataValue.table([dg.TableRecord(row) for row in rows])


def show(
    context: dg.AssetExecutionContext,
    version: ModelVersion,
    registry: Registry,
    tracking: Tracking,
    shown: Mapping[str, Any],
    run_id: str | None = None,
) -> None:
    """Put on the asset's page what it is about, `shown`, and why its run was made.

    The MLflow run is the one that trained the version unless `run_id` names another.
    """
    context.add_output_metadata(
        {
            **shown,
            "model version": version.version,
            "registry page": dg.MetadataValue.url(registry.page(version)),
            "mlflow run": dg.MetadataValue.url(tracking.page(run_id or version.run_id)),
            "digest": version.digest,
            **origin(context.run.tags),
        }
    )


def progress_log(
    context: dg.AssetExecutionContext, what: str, unit: str = "", *, parts: int
) -> Callable[[int, int], None]:
    """Return what logs how many are done of how many, `parts` times on the way."""

    def log(done: int, total: int) -> None:
        if done * parts // total != (done - 1) * parts // total:
            context.log.info(f"{what} {done} of {total}{unit}")

    return log
