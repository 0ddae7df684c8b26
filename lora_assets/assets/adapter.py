"""Stage 2: a QLoRA training run, and the gate on its losses."""

from collections.abc import Mapping
from functools import partial
from typing import Any

import dagster as dg
from pydantic import Field

from lora_assets.assets.adapter_page import log_training, report_loss, show_adapter, training_log
from lora_assets.assets.gate_pages import gate_pages
from lora_assets.assets.graph import GATE, TRAINING, stage_asset
from lora_assets.assets.registered import RECORD, registered_adapter
from lora_assets.assets.verdicts import check_result, now, require_passed, under
from lora_assets.gates.data import Splits, data_is_sound
from lora_assets.gates.quality import QualityThresholds
from lora_assets.gates.quality import quality_gate as decide
from lora_assets.kubernetes.step_pods import step_pod
from lora_assets.parameters import TrainingOptions
from lora_assets.records.dataset import TrainingData
from lora_assets.records.training import LORA_PROFILES, Adapter, Listeners, TrainingParameters
from lora_assets.resources.data_bucket import DataBucket
from lora_assets.resources.fleet import Fleet
from lora_assets.resources.policy import PolicyFile
from lora_assets.resources.registry import ARTIFACT, Registry
from lora_assets.resources.tracking import DATA_SOURCE, KEY_TAG, Tracking, in_mlflow
from lora_assets.resources.trainer import Trainer
from lora_assets.resources.work_folder import WorkFolder
from lora_assets.serving.vllm_plugin.adapters_folder import digest_folder

CODE_VERSION = "2"
"""Of the training; a new one trains again what an older one has trained."""

FRESH = "lora_assets.fresh"
"""The tag of a training that was asked for anew: the Dagster run that asked first."""


class AdapterConfig(TrainingOptions, dg.Config):
    """A training's parameters, or the adapter that takes its place."""

    registered: str | None = Field(
        None, description="MLflow run that 'lora-assets register' left; default: train"
    )


class QualityConfig(QualityThresholds, dg.Config):
    """The quality gate's thresholds, as parameters of the run."""


@stage_asset("training", {"pytorch", "mlflow"}, "train", pool=TRAINING, code_version=CODE_VERSION)
def adapter(
    context: dg.AssetExecutionContext,
    config: AdapterConfig,
    training_data: TrainingData,
    data_bucket: DataBucket,
    trainer: Trainer,
    fleet: Fleet,
    tracking: Tracking,
    registry: Registry,
    work_folder: WorkFolder,
) -> Adapter:
    """Train a LoRA on the data version and leave it, with its digest, in an MLflow run.

    What was trained before for the same model, on the same data and base model, by the same code
    and parameters, is found again as long as its bytes are what they were; unless the run asks
    for a fresh one. An adapter that was registered takes a training's place.
    """
    parameters = trainer.parameters(config.overrides())
    splits = data_bucket.read_unchanged(
        training_data.data_version, training_data.digest, training_data.source
    )
    sound = data_is_sound(training_data, splits, config, now())
    require_passed(sound, "data_is_sound", training_data.digest, training_data.data_version)
    of_data: Mapping[str, Any] = {
        "data_arrived": training_data.arrived,
        "max_leak": config.max_leak,
    }
    if config.registered:
        _require_fit(context, splits, parameters, config.max_left_out, trainer, fleet)
        with work_folder.temporary() as folder:
            rows, clients = splits["val"], (trainer, tracking, folder)
            given = registered_adapter(
                context, config.registered, training_data, rows, parameters, *clients
            )
            return given.model_copy(update=of_data)
    base = trainer.base_identity()
    identity = {
        "model": registry.model_name,
        "data": training_data.digest,
        "base_model": base,
        "code": CODE_VERSION,
        **parameters.model_dump(),
    }
    work = work_folder.keyed("training", **identity)
    key, logged = work.name, _logged(trainer.base_model_name, parameters)
    version = {"data.version": training_data.data_version}
    if config.fresh:
        # What a lost pod left of this request counts; what another run left does not.
        version[FRESH] = context.run.root_run_id or context.run.run_id
        work = work_folder.keyed("training", **identity, fresh=version[FRESH])
    finished = tracking.finished(config.mlflow_experiment, key, version)
    if finished is not None and (before := _kept(context, tracking, finished)) is not None:
        # Its key says which base it is of, also where an earlier release made the record.
        before = before.model_copy(update={"base": base, **of_data})
        show_adapter(context, before, logged, tracking)
        return before
    _require_fit(context, splits, parameters, config.max_left_out, trainer, fleet)
    tags = {**version, DATA_SOURCE: training_data.source, **in_mlflow(context.run)}
    name = f"data-v{training_data.data_version}-{parameters.lora_config}"
    with tracking.run(config.mlflow_experiment, name, work.name, tags, context) as run:
        run.parameters(logged)
        run.dataset(training_data, "train", "training")
        run.dataset(training_data, "val", "validation")
        context.log.info(f"loading {trainer.base_model_name} to train on it")
        on_loss = partial(report_loss, context, run)
        told = Listeners(on_loss, training_log(context), context.log.info)
        metrics = trainer.train(splits, parameters, work / "checkpoints", work / ARTIFACT, told)
        digest = digest_folder(work / ARTIFACT)
        run.folder(work / ARTIFACT, ARTIFACT)
        run.tags({"adapter.digest": digest, "adapter.base": base, KEY_TAG: key})
        log_training(context, run, metrics, parameters.max_seq_length)
        trained = Adapter(
            digest=digest,
            data_version=training_data.data_version,
            data_digest=training_data.digest,
            base=base,
            base_model=trainer.base_model_name,
            lora_config=parameters.lora_config,
            mlflow_run_id=run.run_id,
            metrics=metrics,
            **of_data,
        )
        run.record(trained, RECORD)
    context.log.info(f"trained adapter {digest[:12]} in {metrics.steps} steps")
    show_adapter(context, trained, logged, tracking)
    return trained


@dg.asset_check(**GATE, asset=adapter, op_tags=step_pod("quality-gate"))
def quality_gate(
    config: QualityConfig, adapter: Adapter, registry: Registry, policy: PolicyFile
) -> dg.AssetCheckResult:
    """Eval loss and perplexity within their limits."""
    verdict = under(policy, decide(adapter, config, now()))
    registry.tracking.store_verdict(adapter.mlflow_run_id, verdict, registry.model_name)
    return check_result(verdict, gate_pages(registry, verdict))


def _require_fit(
    context: dg.AssetExecutionContext,
    splits: Splits,
    parameters: TrainingParameters,
    share: float,
    trainer: Trainer,
    fleet: Fleet,
) -> None:
    """Refuse rows that the base model can't take; say so where the server's limit isn't known."""
    max_model_len, unknown = fleet.longest()
    if unknown:
        context.log.warning(unknown)
    trainer.require_fit(splits, parameters.max_seq_length, max_model_len, share)


def _kept(context: dg.AssetExecutionContext, tracking: Tracking, run_id: str) -> Adapter | None:
    """Return what an earlier run left; None where its adapter is damaged."""
    trained = tracking.record(run_id, RECORD, Adapter)
    if not tracking.holds(run_id, ARTIFACT, trained.digest):
        context.log.warning(
            f"adapter {trained.digest[:12]} is damaged or lost in MLflow run {run_id}: "
            "it is trained again"
        )
        return None
    context.log.info(f"adapter {trained.digest[:12]} was trained in MLflow run {run_id}")
    return trained


def _logged(base_model: str, parameters: TrainingParameters) -> Mapping[str, Any]:
    """Return every parameter of the training, those of its LoRA profile among them."""
    profile = LORA_PROFILES[parameters.lora_config]
    return {
        "base_model": base_model,
        **parameters.model_dump(),
        "lora_r": profile.rank,
        "lora_alpha": profile.alpha,
        "lora_dropout": profile.dropout,
        "lora_target_modules": ",".join(profile.target_modules),
    }
