"""What the assets show in Dagster's UI, on their pages and in a run's log."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import dagster as dg

from lora_assets.assets.run_tags import origin
from lora_assets.records.model_version import ModelVersion
from lora_assets.resources.registry import Registry


def table(rows: Iterable[Mapping[str, Any]]) -> dg.TableMetadataValue:
    """Return rows as a table, each with the same columns."""
    return dg.MetadataValue.table([dg.TableRecord(row) for row in rows])


def sides_table(columns: Mapping[str, Mapping[str, str]]) -> dg.TableMetadataValue:
    """Return a row per measure and a column per side; what a side lacks is missing."""
    measures = dict.fromkeys(measure for column in columns.values() for measure in column)
    return table(
        {"measure": measure}
        | {side: column.get(measure, "missing") for side, column in columns.items()}
        for measure in measures
    )


def show(context: dg.AssetExecutionContext, shown: Mapping[str, Any]) -> None:
    """Put on the asset's page `shown`, and why its run was made."""
    context.add_output_metadata({**shown, **origin(context.run.tags)})


def pages_of(registry: Registry, version: ModelVersion, run_id: str = "") -> dict[str, Any]:
    """Return what an asset's page shows of a model version.

    The MLflow run is the one that trained the version unless `run_id` names another.
    """
    return {
        "model version": version.version,
        "registry page": dg.MetadataValue.url(registry.page(version)),
        "mlflow run": dg.MetadataValue.url(registry.tracking.page(run_id or version.run_id)),
        "digest": version.digest,
    }


def progress_log(
    context: dg.AssetExecutionContext, what: str, unit: str = "", *, parts: int
) -> Callable[[int, int], None]:
    """Return what logs how many are done of how many, `parts` times on the way."""

    def log(done: int, total: int) -> None:
        if done * parts // total != (done - 1) * parts // total:
            context.log.info(f"{what} {done} of {total}{unit}")

    return log
