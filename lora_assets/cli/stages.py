"""train, deploy, evaluate, performance, promote, rollback: each stage on one data version."""

from collections.abc import Mapping
from typing import Any

import click

from lora_assets.assets.adapter import QualityConfig, TrainingConfig
from lora_assets.assets.eval_grades import EvalConfig, EvalGateConfig
from lora_assets.assets.live_deployment import PromoteConfig
from lora_assets.assets.perf_metrics import PerfConfig, PerfGateConfig
from lora_assets.assets.staged_deployment import DeployConfig
from lora_assets.cli.config_options import chosen, config_options
from lora_assets.cli.runs import materialise, open_instance
from lora_assets.cli.stack import Stack, stack_options
from lora_assets.definitions import make_definitions

_EVERYWHERE = ("model_name", "mlflow_tracking_uri")
Ops = Mapping[str, Mapping[str, Any]]


def _run(job: str, stack: Stack, data_version: str, ops: Ops) -> None:
    """Refuse a data version that can't be read before anything is recorded; then run the job."""
    stack.resources.data_bucket.read(data_version)
    click.echo(f"{job}: data version {data_version}", err=True)
    instance = open_instance(stack.settings)
    job_definition = make_definitions(stack.settings).resolve_job_def(job)
    materialise(instance, job_definition, data_version, ops)
    click.echo(f"{job}: data version {data_version} done", err=True)


@click.command()
@click.option("--data-version", required=True, help="Training data version")
@stack_options(*_EVERYWHERE, "s3_data_bucket")
@config_options(TrainingConfig, QualityConfig)
def train(data_version: str, **options: Any) -> None:
    """Train an adapter on a data version; past its quality gate it becomes `candidate`."""
    stack = Stack(options)
    training = chosen(TrainingConfig, options)
    stack.resources.trainer.parameters(TrainingConfig(**training).overrides())
    ops = {"adapter": training, "adapter_quality_gate": chosen(QualityConfig, options)}
    _run("train", stack, data_version, ops)


@click.command()
@stack_options(*_EVERYWHERE, "vllm_url")
@config_options(DeployConfig)
def deploy(**options: Any) -> None:
    """Load an adapter on every replica and smoke-test it; then it is `staged`."""
    stack = Stack(options)
    config = chosen(DeployConfig, options)
    version = stack.resources.registry.resolve(config.get("adapter_source", "alias:candidate"))
    config["adapter_source"] = f"version:{version.version}"
    _run("deploy", stack, version.data_version, {"staged_deployment": config})


@click.command()
@stack_options(*_EVERYWHERE, "vllm_url", "judge_url", "judge_model", "s3_data_bucket")
@config_options(EvalConfig, EvalGateConfig)
def evaluate(**options: Any) -> None:
    """Grade the `staged` adapter's answers beside live's; `eval-passed` or `eval-failed`."""
    stack = Stack(options)
    ops = {
        "eval_grades": chosen(EvalConfig, options),
        "eval_grades_eval_gate": chosen(EvalGateConfig, options),
    }
    _run("evaluate", stack, stack.resources.registry.resolve("alias:staged").data_version, ops)


@click.command()
@stack_options(*_EVERYWHERE, "vllm_url", "prometheus_url", "s3_data_bucket")
@config_options(PerfConfig, PerfGateConfig)
def performance(**options: Any) -> None:
    """Load-test the `eval-passed` adapter; `perf-passed` or `perf-failed`."""
    stack = Stack(options)
    ops = {
        "perf_metrics": chosen(PerfConfig, options),
        "perf_metrics_perf_gate": chosen(PerfGateConfig, options),
    }
    _run(
        "performance",
        stack,
        stack.resources.registry.resolve("alias:eval-passed").data_version,
        ops,
    )


@click.command()
@stack_options(*_EVERYWHERE, "vllm_url")
@config_options(PromoteConfig)
def promote(**options: Any) -> None:
    """Give the live traffic to the adapter behind --source-alias."""
    _promote(Stack(options), chosen(PromoteConfig, options))


@click.command()
@stack_options(*_EVERYWHERE, "vllm_url")
def rollback(**options: Any) -> None:
    """Give the live traffic back to `previous`."""
    _promote(Stack(options), {"source_alias": "previous"})


def _promote(stack: Stack, config: Mapping[str, Any]) -> None:
    alias = config.get("source_alias", PromoteConfig.model_fields["source_alias"].default)
    cut_short = stack.resources.registry.promotion()
    if cut_short is not None and cut_short.source_alias == alias:
        version = cut_short.version
    else:
        version = stack.resources.registry.resolve(f"alias:{alias}")
    _run("promote", stack, version.data_version, {"live_deployment": config})
