"""What a training shows: its progress in the log, its numbers on the page and in MLflow."""

from collections.abc import Callable, Mapping
from typing import Any

import dagster as dg

from lora_assets.assets.figures import plot
from lora_assets.assets.pages import progress_log, show, table
from lora_assets.records.training import (
    Adapter,
    Losses,
    LossPoint,
    TrainingMetrics,
    TrainingProgress,
)
from lora_assets.resources.tracked_run import TrackedRun
from lora_assets.resources.tracking import Tracking
from lora_assets.training.curve import learning_curve

HEADLINE = ("final_eval_loss", "final_perplexity", "tokens_per_second")
"""What matters of a training: nats per answer token, its exponential, speed."""


def training_log(context: dg.AssetExecutionContext) -> Callable[[TrainingProgress], None]:
    """Return what logs the tokens that were trained, their rate, the time to go and the loss."""
    log = progress_log(context, "trained", " tokens", parts=10)

    def on_progress(done: TrainingProgress) -> None:
        so_far = "" if done.loss is None else f", loss {done.loss:.4f}"
        log(done.tokens, done.total_tokens, so_far)

    return on_progress


def report_loss(context: dg.AssetExecutionContext, run: TrackedRun, point: LossPoint) -> None:
    """Store a loss in the MLflow run; log it where it is of an evaluation."""
    run.metrics({point.name: point.value}, step=point.step)
    if point.name == "eval_loss":
        context.log.info(f"step {point.step}: eval loss {point.value:.4f}")


def log_training(
    context: dg.AssetExecutionContext,
    run: TrackedRun,
    metrics: TrainingMetrics,
    max_seq_length: int,
) -> None:
    """Store curve, numbers and use of the machine in the MLflow run; name rows left out."""
    run.figure(learning_curve(metrics.curve), "learning_curve")
    run.metrics(final_numbers(metrics))
    run.tags({f"engine.{name}": value for name, value in _engine(metrics).items()})
    for split, rows in metrics.rows_left_out.items():
        if rows:
            context.log.warning(
                f"{split}: {len(rows)} row(s) longer than {max_seq_length} tokens left out: "
                f"lines {', '.join(str(row + 1) for row in rows)}"
            )


def _engine(metrics: Losses) -> Mapping[str, str]:
    """Return how the machine was used; empty where an earlier release made the record."""
    engine = getattr(metrics, "engine", None)
    used = {} if engine is None else engine.model_dump(exclude_none=True)
    return {name: str(value) for name, value in used.items()}


def final_numbers(metrics: Losses) -> Mapping[str, float]:
    """Return the numbers that a training ends with; one that is missing stays missing."""
    names = ("final_eval_loss", "final_perplexity", "tokens_per_second", "steps", "best_step")
    final = {name: getattr(metrics, name, None) for name in names}
    return {name: float(value) for name, value in final.items() if value is not None}


def show_adapter(
    context: dg.AssetExecutionContext,
    trained: Adapter,
    logged: Mapping[str, Any],
    tracking: Tracking,
) -> None:
    """Put curve, parameters, machine and numbers of a training on the asset's page."""
    parameters = ({"parameter": name, "value": str(value)} for name, value in logged.items())
    metrics = trained.metrics
    shown: dict[str, Any] = {
        "learning curve": plot(learning_curve(getattr(metrics, "curve", ()))),
        "parameters": table(parameters),
        "mlflow run": dg.MetadataValue.url(tracking.page(trained.mlflow_run_id)),
        "digest": trained.digest,
        "rows left out": dg.MetadataValue.json(dict(metrics.rows_left_out)),
    }
    if lengths := getattr(metrics, "row_lengths", {}):
        measured = table(
            {"split": split}
            | of_split.model_dump()
            | {"too long, left out": len(metrics.rows_left_out[split])}
            for split, of_split in lengths.items()
        )
        of_data = {"row lengths (tokens)": measured}
        shown |= of_data
        # The step of the data has no tokenizer.
        partition = context.partition_key
        context.log_event(
            dg.AssetObservation("training_data", partition=partition, metadata=of_data)
        )
    if engine := _engine(metrics):
        used = ({"engine": name.replace("_", " "), "value": engine[name]} for name in engine)
        shown["engine"] = table(used)
    if machine := tracking.system_metrics(trained.mlflow_run_id):
        shown["system metrics"] = table(machine)
    final = final_numbers(metrics)
    facts = [f"{name.replace('_', ' ')} {final[name]:.4g}" for name in HEADLINE if name in final]
    show(context, facts, {**shown, **final})
