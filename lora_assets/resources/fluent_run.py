"""A training's MLflow run as dagster-mlflow carries it, with MLflow's own look at the machine.

Server, experiment and active run are MLflow's globals then, of the whole process. So only a
training has it; all else logs to a run by its id.
"""

import os
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from typing import Any

import dagster as dg

from lora_assets.heavy_imports import heavy_imports
from lora_assets.resources.mlflow_client import mlflow_errors

warnings.filterwarnings("ignore", ".*mlflow", dg.BetaWarning)

SAMPLING = "MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL"
"""MLflow's variable: seconds between two looks at CPU, memory and GPU."""


@contextmanager
def fluent_run(
    context: dg.AssetExecutionContext,
    tracking_uri: str,
    experiment: str,
    run_id: str,
    tags: Mapping[str, str],
    sampling_s: float,
) -> Iterator[None]:
    """Carry a run for the length of the block, which ends it.

    A shorter one than `sampling_s` has no system metrics. MLflow's own variable of it wins.
    """
    with heavy_imports():
        from dagster_mlflow import mlflow_tracking
    configured = {
        "mlflow_tracking_uri": tracking_uri,
        "experiment_name": experiment,
        "mlflow_run_id": run_id,
        "extra_tags": dict(tags),
        "env": {
            "MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING": "true",
            SAMPLING: os.environ.get(SAMPLING, str(sampling_s)),
        },
    }
    with (
        _own_variables(),
        dg.build_resources(
            {"mlflow": mlflow_tracking.configured(configured)},
            context.instance,
            dagster_run=context.run,
            log_manager=context.log,
        ) as resources,
    ):
        mlflow: Any = resources.mlflow
        yield
        # The resource ends a run that fails, and leaves one that does not to a hook.
        with mlflow_errors(tracking_uri):
            mlflow.end_run()


@contextmanager
def _own_variables() -> Iterator[None]:
    """Put MLflow's variables back: its fluent calls leave server and experiment in them."""
    mlflow: Any = import_module("mlflow")
    before = _variables()
    try:
        yield
    finally:
        mlflow.set_tracking_uri(None)
        for name in _variables():
            del os.environ[name]
        os.environ.update(before)


def _variables() -> Mapping[str, str]:
    return {name: value for name, value in os.environ.items() if name.startswith("MLFLOW_")}
