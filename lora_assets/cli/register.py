"""register: an adapter that was trained elsewhere becomes a candidate."""

import math
from pathlib import Path
from typing import Any

import click
from pydantic import BaseModel, Field

from lora_assets.assets.registered import REGISTERED
from lora_assets.cli.completions import data_versions
from lora_assets.cli.config_options import chosen, config_options, fields_of
from lora_assets.cli.result import json_option, tell
from lora_assets.cli.stack import Stack, stack_options
from lora_assets.cli.stage_run import Work, run_stage, write_outputs
from lora_assets.errors import LoraAssetsError
from lora_assets.gates.data import DataThresholds
from lora_assets.gates.quality import QualityThresholds
from lora_assets.parameters import TrainingOptions
from lora_assets.records.training import Adapter, Losses, perplexity
from lora_assets.resources.adapter_source import fetch_source
from lora_assets.resources.registry import ARTIFACT
from lora_assets.resources.tracking import DATA_SOURCE
from lora_assets.serving.base_shapes import base_modules
from lora_assets.serving.trained_elsewhere import rewrite
from lora_assets.serving.vllm_plugin.adapters_folder import digest_folder

_ROUNDING = 0.01
"""How far, as a share, a perplexity may be from the loss that is given with it."""


class Given(BaseModel):
    """What is known of the adapter."""

    eval_loss: float | None = Field(
        None,
        ge=0,
        allow_inf_nan=False,
        description="Its loss on the val split, in nats per answer token; left out, measured here",
    )
    perplexity: float | None = Field(
        None,
        ge=1,
        allow_inf_nan=False,
        description="Its perplexity there; default: e to the power of --eval-loss",
    )

    @property
    def losses(self) -> Losses:
        """Return what the quality gate reads; refuse a perplexity that is of another loss."""
        if self.eval_loss is None:
            if self.perplexity is not None:
                raise LoraAssetsError("--perplexity needs --eval-loss", "Give --eval-loss too.")
            return Losses(final_eval_loss=None, final_perplexity=None)
        expected = perplexity(self.eval_loss)
        given = expected if self.perplexity is None else self.perplexity
        if not math.isclose(given, expected, rel_tol=_ROUNDING):
            raise LoraAssetsError(
                f"--perplexity {given:g} is not that of --eval-loss {self.eval_loss:g}, which is "
                f"{expected:.4g}",
                "Give the mean loss per answer token, or leave both out: then it is measured.",
            )
        return Losses(final_eval_loss=self.eval_loss, final_perplexity=given, given=True)


_MEASURED_BY = ("batch_size", "max_seq_length", "quantization", "max_left_out", "mlflow_experiment")
Measuring = fields_of(TrainingOptions, *DataThresholds.model_fields, *_MEASURED_BY)


@click.command()
@click.argument("source", metavar="FOLDER|runs:/…|models:/…")
@click.option(
    "--data-version",
    required=True,
    help="What it was trained on, as it is here",
    shell_complete=data_versions,
)
@json_option
@click.option("--trained-on", help="What the adapter calls the base model, if by another name")
@stack_options("model_name", "mlflow_tracking_uri", "s3_data_bucket")
@config_options(Given, Measuring, QualityThresholds)
def register(source: str, data_version: str, trained_on: str | None, **options: Any) -> None:
    """Make an adapter that was trained elsewhere a candidate.

    It is in FOLDER, in runs:/RUN/FOLDER or in models:/NAME/VERSION, in peft's form. It passes the
    quality gate like one that is trained here, and 'lora-assets deploy' is next.
    """
    stack = Stack(options)
    ops = {
        "training_data_data_is_sound": chosen(DataThresholds, options),
        "adapter": chosen(Measuring, options),
        "adapter_quality_gate": chosen(QualityThresholds, options),
    }
    training = TrainingOptions(**ops["adapter"])
    stack.resources.trainer.parameters(training.overrides())
    losses = Given(**chosen(Given, options)).losses
    data, _ = stack.resources.data_bucket.read(data_version, keep=())
    registry = stack.resources.registry
    with stack.resources.work_folder.temporary() as work:
        adapter = work / ARTIFACT
        _fetch(stack, source, adapter, trained_on)
        digest = digest_folder(adapter)
        known = registry.known(digest, data_version, _base(stack))
        if known is not None and known in registry.aliases().values():
            tell(f"register: nothing to do: it is version {known.version}")
            write_outputs(stack, Work(data_version=data_version, ops={}, version=known))
            return
        given = Adapter(
            digest=digest,
            data_version=data.data_version,
            data_digest=data.digest,
            base_model=stack.resources.trainer.base_model_name,
            lora_config=None,
            mlflow_run_id="",
            metrics=losses,
            data_arrived=data.arrived,
        )
        run_id = _upload(stack, source, adapter, given, data.source, training.mlflow_experiment)
        ops["adapter"]["registered"] = run_id
    run_stage(stack, "train", None, lambda: Work(data_version=data_version, ops=ops))


def _base(stack: Stack) -> str:
    """Return the base model's identity; empty where it is known only to the Dagster elsewhere."""
    return "" if stack.settings.dagster_url else stack.resources.trainer.base_identity()


def _fetch(stack: Stack, source: str, to: Path, trained_on: str | None) -> None:
    trainer, tracking = stack.resources.trainer, stack.resources.tracking
    fetched = to.with_name("fetched")
    left = fetch_source(source, tracking.tracking_uri, fetched)
    rewrite(
        fetched,
        to,
        (trainer.base_model_name, trainer.base_model),
        base_modules(trainer.base_model),
        stack.resources.fleet.max_lora_rank,
        trained_on,
    )
    if left:
        tell(f"left behind: {', '.join(left)}")


def _upload(
    stack: Stack, source: str, folder: Path, adapter: Adapter, data_source: str, experiment: str
) -> str:
    """Leave an adapter in an MLflow run, unless an earlier one has it; return the run's id."""
    tracking = stack.resources.tracking
    # Not by its tag: MLflow's filter takes no apostrophe, and a folder's name may have one.
    identity = {"model": stack.model, "source": data_source, **adapter.model_dump()}
    key = stack.resources.work_folder.keyed(REGISTERED, **identity).name
    version = {"data.version": adapter.data_version}
    before = tracking.finished(experiment, key, version)
    if before is not None and tracking.holds(before, ARTIFACT, adapter.digest):
        return before
    name = f"data-v{adapter.data_version}-{REGISTERED}"
    with tracking.run(experiment, name, key, {**version, DATA_SOURCE: data_source}) as run:
        run.tags({"adapter.digest": adapter.digest, "lora_assets.registered_from": source})
        run.parameters({"base_model": adapter.base_model})
        run.folder(folder, ARTIFACT)
        run.record(adapter.model_copy(update={"mlflow_run_id": run.run_id}), REGISTERED)
    return run.run_id
