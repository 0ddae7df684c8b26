"""A registry as the specification's five scripts leave it."""

from collections.abc import Mapping
from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities import Metric

from lora_assets.resources.registry import Registry

ARTIFACTS = "their-artifacts"
METRICS = {"eval_loss": 0.42, "perplexity": 1.52}


def register_by_script(
    registry: Registry, folder: Path, *aliases: str, tags: Mapping[str, str] | None = None
) -> int:
    """Register `runs:/<run>/adapter`: tags and metrics on its run, none on the version.

    A database that has no server has the experiment's files in a folder beside it.
    """
    _, is_database, database = registry.tracking_uri.partition("sqlite:///")
    artifacts = Path(database).with_name(ARTIFACTS).as_uri() if is_database else None
    client = MlflowClient(registry.tracking_uri, registry.tracking_uri)
    experiment = client.get_experiment_by_name("vllm-lora")
    experiment_id = experiment and experiment.experiment_id
    run = client.create_run(experiment_id or client.create_experiment("vllm-lora", artifacts))
    for name, value in (tags or {}).items():
        client.set_tag(run.info.run_id, name, value)
    for name, number in METRICS.items():
        client.log_batch(run.info.run_id, [Metric(name, number, 0, 0)])
    client.log_artifacts(run.info.run_id, str(folder), "adapter")
    if not client.search_registered_models(f"name = '{registry.model_name}'"):
        client.create_registered_model(registry.model_name)
    source = f"runs:/{run.info.run_id}/adapter"
    made = client.create_model_version(registry.model_name, source, run.info.run_id)
    for alias in aliases:
        client.set_registered_model_alias(registry.model_name, alias, made.version)
    return int(made.version)
