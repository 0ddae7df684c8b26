"""What the assets show in Dagster's UI, on their pages and in a run's log."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from time import monotonic
from typing import Any

import dagster as dg

from lora_assets.lifecycle import next_step
from lora_assets.records.markdown import as_it_is
from lora_assets.records.model_version import ModelVersion
from lora_assets.records.run_tags import ARGO_WORKFLOW, WHY
from lora_assets.resources.registry import Registry

Table = dg.TableMetadataValue | dg.TextMetadataValue
"""Rows on a page, or the word that there are none."""

Rows = Sequence[Mapping[str, Any]]


def table(rows: Iterable[Mapping[str, Any]]) -> Table:
    """Return rows as a table, each with the same columns; the word "none" where there is no row."""
    # Dagster refuses a table without columns.
    records = [dg.TableRecord(_rounded(row)) for row in rows]
    return dg.MetadataValue.table(records) if records else dg.MetadataValue.text("none")


def sides_rows(columns: Mapping[str, Mapping[str, str]]) -> Rows:
    """Return a row per measure and a column per side; what a side lacks is missing."""
    measures = dict.fromkeys(measure for column in columns.values() for measure in column)
    return [
        {"measure": measure}
        | {side: column.get(measure, "missing") for side, column in columns.items()}
        for measure in measures
    ]


def show(context: dg.AssetExecutionContext, facts: Iterable[str], shown: Mapping[str, Any]) -> None:
    """Put on the asset's page the `facts` that matter in one line, `shown`, and why it was made."""
    asset = context.asset_key.to_user_string()
    summary = f"**Data version {context.partition_key}**: {as_it_is('; '.join(facts))}."
    context.add_output_metadata(
        {
            "summary": dg.MetadataValue.md(f"{summary} Next: {next_step(asset)}"),
            **_rounded(shown),
            **origin(context.run.tags),
        }
    )


def origin(tags: Mapping[str, str]) -> Mapping[str, dg.MetadataValue]:
    """Return what a run's tags say of its origin, for the assets' pages."""
    shown: dict[str, dg.MetadataValue] = {}
    if WHY in tags:
        shown["why"] = dg.MetadataValue.text(tags[WHY])
    if (workflow := tags.get(ARGO_WORKFLOW)) is not None:
        is_url = workflow.startswith(("http://", "https://"))
        value = dg.MetadataValue.url if is_url else dg.MetadataValue.text
        shown["argo workflow"] = value(workflow)
    return shown


def rounded(value: float) -> float:
    """Return a number with six digits that tell something, as it is shown and plotted."""
    return float(f"{value:.6g}")


def _rounded(values: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: rounded(value) if isinstance(value, float) else value
        for name, value in values.items()
    }


def number(value: float, sign: str = "") -> str:
    """Return a number with at most four decimals, and none that are zero; "+" signs all."""
    return f"{value:{sign}.4f}".rstrip("0").rstrip(".")


def pages_of(registry: Registry, version: ModelVersion, run_id: str = "") -> dict[str, Any]:
    """Return what an asset's page shows of a model version.

    The MLflow run is the one that trained the version unless `run_id` names another.
    """
    report = registry.tracking.report_page(version.run_id)
    command = f"lora-assets report --data-version {version.data_version}"
    return {
        "model version": version.version,
        "registry page": dg.MetadataValue.url(registry.page(version)),
        "mlflow run": dg.MetadataValue.url(registry.tracking.page(run_id or version.run_id)),
        "digest": version.digest,
        "report": dg.MetadataValue.url(report) if report else command,
    }


SECONDS_BETWEEN_LINES = 10.0


def progress_log(
    context: dg.AssetExecutionContext, what: str, unit: str = "", *, parts: int
) -> Callable[..., None]:
    """Return what logs how many are done of how many, with the rate and the time to go.

    It does so `parts` times on the way, and every SECONDS_BETWEEN_LINES in between.
    """
    started = last = monotonic()
    before: int | None = None
    part = 0

    def log(done: int, total: int, so_far: str = "") -> None:
        nonlocal last, before, part
        now = monotonic()
        if before is None:
            # What an attempt that was killed left done says nothing of the rate.
            before = max(done - 1, 0)
        if (reached := done * parts // total) != part or now - last >= SECONDS_BETWEEN_LINES:
            last, part = now, reached
            rate = pace(done - before, total - before, now - started)
            context.log.info(f"{what} {done} of {total}{unit}{rate}{so_far}")

    return log


def pace(done: int, total: int, seconds: float) -> str:
    """Return rate and time to go after so many `seconds`; empty at the start and at the end."""
    if not 0 < done < total or seconds <= 0:
        return ""
    rate = done / seconds
    shown = f"{rate:.0f}" if rate >= 100 else f"{rate:.3g}"
    return f", {shown}/s, {(total - done) / rate:.0f} s to go"
