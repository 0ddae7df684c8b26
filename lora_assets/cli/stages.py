"""train, deploy, evaluate, performance, promote: each stage on one data version."""

from collections.abc import Mapping
from typing import Any

import click
from pydantic import BaseModel

from lora_assets.cli.config_options import chosen, config_options
from lora_assets.cli.newest_data import data_version_option, newest_data_version
from lora_assets.cli.stack import Stack, stack_options
from lora_assets.cli.stage_run import Work, run_stage, step_option, write_outputs
from lora_assets.errors import LoraAssetsError
from lora_assets.gates.data import DataThresholds
from lora_assets.gates.evaluation import EvalThresholds
from lora_assets.gates.performance import PerfThresholds
from lora_assets.gates.quality import QualityThresholds
from lora_assets.gates.smoke import SmokeThresholds
from lora_assets.parameters import (
    DeployOptions,
    EvalOptions,
    PerfOptions,
    PromoteOptions,
    TrainingOptions,
)
from lora_assets.records.model_version import ModelVersion
from lora_assets.records.run_outcome import RunFailed

_EVERYWHERE = ("model_name", "mlflow_tracking_uri")
_REPLICAS = ("vllm_url", "deployment", "namespace")
_SOUND = "training_data_data_is_sound"
_Configs = Mapping[str, type[BaseModel]]
_EVALUATED: _Configs = {"eval_grades": EvalOptions, "eval_grades_eval_gate": EvalThresholds}
_LOAD_TESTED: _Configs = {"perf_metrics": PerfOptions, "perf_metrics_perf_gate": PerfThresholds}


@click.command()
@data_version_option
@step_option("train")
@stack_options(*_EVERYWHERE, "s3_data_bucket")
@config_options(DataThresholds, TrainingOptions, QualityThresholds)
def train(data_version: str | None, step: str | None, **options: Any) -> None:
    """Train an adapter on a data version.

    Past its quality gate it becomes `candidate`.
    """
    stack = Stack(options)
    training = chosen(TrainingOptions, options)
    ops = {
        _SOUND: chosen(DataThresholds, options),
        "adapter": training,
        "adapter_quality_gate": chosen(QualityThresholds, options),
    }

    def work() -> Work:
        stack.resources.trainer.parameters(TrainingOptions(**training).overrides())
        wanted = data_version or newest_data_version(stack.resources.data_bucket)
        stack.resources.data_bucket.read(wanted, keep=())
        # Without a registry a training ends where it began, but with a GPU taken.
        stack.resources.registry.aliases()
        return Work(data_version=wanted, ops=ops)

    try:
        run_stage(stack, "train", step, work)
    except RunFailed as failed:
        # In a workflow a failed quality gate is an outcome, not a fault (specification).
        if step != "quality-gate" or failed.gate is None or stack.settings.outputs is None:
            raise
        click.echo(str(failed), err=True)


@click.command()
@step_option("deploy")
@stack_options(*_EVERYWHERE, *_REPLICAS)
@config_options(DeployOptions, SmokeThresholds)
def deploy(step: str | None, **options: Any) -> None:
    """Load an adapter on every replica and smoke-test it.

    Then it is `staged`.
    """
    stack = Stack(options)
    config = chosen(DeployOptions, options)
    smoke = chosen(SmokeThresholds, options)
    source = config.get("adapter_source", "alias:candidate")
    if step == "set-staged-alias":
        _require_staged(stack, stack.resources.registry.resolve(source))
        return

    def work() -> Work:
        version = _trained_here(stack, source)
        config["adapter_source"] = f"version:{version.version}"
        ops = {"staged_deployment": config, "staged_deployment_smoke_test": smoke}
        return Work(data_version=version.data_version, ops=ops, version=version)

    run_stage(stack, "deploy", step, work)


@click.command()
@step_option("evaluate")
@stack_options(*_EVERYWHERE, *_REPLICAS, "judge_url", "judge_model", "s3_data_bucket")
@config_options(EvalOptions, EvalThresholds, DataThresholds)
def evaluate(step: str | None, **options: Any) -> None:
    """Grade the answers of the `staged` adapter and of live.

    The gate sets `eval-passed` or `eval-failed`.
    """
    _measure("evaluate", "alias:staged", step, options, _EVALUATED)


@click.command()
@step_option("performance")
@stack_options(*_EVERYWHERE, *_REPLICAS, "prometheus_url", "s3_data_bucket")
@config_options(PerfOptions, PerfThresholds, DataThresholds)
def performance(step: str | None, **options: Any) -> None:
    """Load-test the `eval-passed` adapter.

    The gate sets `perf-passed` or `perf-failed`.
    """
    _measure("performance", "alias:eval-passed", step, options, _LOAD_TESTED)


def _measure(
    stage: str, source: str, step: str | None, options: Mapping[str, Any], configs: _Configs
) -> None:
    stack = Stack(options)
    # Of a later stage one step alone asks the data gate.
    asked: _Configs = {_SOUND: DataThresholds} if step == "download-eval-data" else {}
    ops = {op: chosen(config, options) for op, config in {**asked, **configs}.items()}
    run_stage(stack, stage, step, lambda: _on_its_data(stack, source, ops))


@click.command()
@step_option("promote")
@stack_options(*_EVERYWHERE, *_REPLICAS)
@config_options(PromoteOptions)
def promote(step: str | None, **options: Any) -> None:
    """Give the live traffic to the adapter behind --source-alias.

    `previous` is a rollback.
    """
    stack, config = Stack(options), chosen(PromoteOptions, options)
    alias = config.get("source_alias", PromoteOptions.model_fields["source_alias"].default)
    if alias == "previous":
        from lora_assets.cli.rollback import roll_back

        # It has a job of its own, which waits for nothing.
        roll_back(stack, {name: config[name] for name in ("slot_name",) if name in config})
        return

    def work() -> Work:
        cut_short = stack.resources.registry.promotion()
        if cut_short is not None and cut_short.source_alias == alias:
            version = cut_short.version
        else:
            version = stack.resources.registry.resolve(f"alias:{alias}")
        ops = {"live_deployment": config}
        return Work(data_version=version.data_version, ops=ops, version=version)

    run_stage(stack, "promote", step, work)


def _trained_here(stack: Stack, source: str) -> ModelVersion:
    """Return a version that the gates can judge; refuse one that was adopted."""
    version = stack.resources.registry.resolve(source)
    if not version.data_digest:
        raise LoraAssetsError(
            f"Version {version.version} was adopted: it can be live or previous, but the gates "
            "can't judge it, since only the name of its data is known",
            f"Train on data version {version.data_version}, and deploy what comes of it.",
        )
    return version


def _on_its_data(stack: Stack, source: str, ops: Mapping[str, Mapping[str, Any]]) -> Work:
    """Work on an adapter and its data; refused when the data is not what it was trained on.

    Data come from where the adapter's did, or from the bucket that is named for them.
    """
    version = _trained_here(stack, source)
    bucket, trained_on = stack.resources.data_bucket, ""
    if not stack.names_another("s3_data_bucket"):
        trained_on = stack.resources.registry.tracking.data_source(version.run_id)
    bucket.read_unchanged(version.data_version, version.data_digest, trained_on, keep=())
    return Work(data_version=version.data_version, ops=ops, version=version)


def _require_staged(stack: Stack, version: ModelVersion) -> None:
    """Refuse to go on unless `staged` is where the smoke test that this version passed put it."""
    from lora_assets.assets.verdicts import require_passed

    registry = stack.resources.registry
    verdict = registry.verdicts(version).get("smoke_test")
    require_passed(verdict, "smoke_test", version.digest, version.data_version)
    staged = registry.aliases().get("staged")
    if staged != version:
        raise LoraAssetsError(
            f"Alias staged points at {f'version {staged.version}' if staged else 'nothing'}, "
            f"not at version {version.version}",
            "Deploy that version again; something else has moved the alias since.",
        )
    write_outputs(stack, Work(data_version=version.data_version, ops={}, version=version))
