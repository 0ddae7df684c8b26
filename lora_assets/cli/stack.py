"""The stack that a command works on: the environment's, with what its options override."""

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import click

from lora_assets.environment import make_resources, read_settings

Command = TypeVar("Command", bound=Callable[..., Any])

_OVERRIDES: Mapping[str, tuple[tuple[str, str], ...]] = {
    "model_name": (("registry", "model_name"),),
    "mlflow_tracking_uri": (("tracking", "tracking_uri"), ("registry", "tracking_uri")),
    "s3_data_bucket": (("data_bucket", "uri"),),
    "vllm_url": (("fleet", "vllm_url"),),
    "judge_url": (("judge", "judge_url"),),
    "judge_model": (("judge", "judge_model"),),
    "prometheus_url": (("server_metrics", "prometheus_url"),),
}
"""The specification's parameters that say where something is, and the resource fields they set."""

_HELP = {
    "model_name": "MLflow registered model name",
    "mlflow_tracking_uri": "MLflow server URL",
    "s3_data_bucket": "Bucket for training and eval data",
    "vllm_url": "vLLM server URL",
    "judge_url": "Judge URL",
    "judge_model": "Judge model name (empty: auto-detect)",
    "prometheus_url": "Prometheus URL (empty: each replica's /metrics)",
}


def stack_options(*names: str) -> Callable[[Command], Command]:
    """Add the options that say where something is; their defaults are the environment's."""

    def decorate(command: Command) -> Command:
        for name in reversed(names):
            option = f"--{name.replace('_', '-')}"
            command = click.option(option, name, default=None, help=_HELP[name])(command)
        return command

    return decorate


class Stack:
    """The stack's resources, and the run configuration that repeats the choice."""

    def __init__(self, options: Mapping[str, Any]) -> None:
        self._given = {n: options[n] for n in _OVERRIDES if options.get(n) is not None}
        self.settings = read_settings().model_copy(update=self._given)
        self.resources = make_resources(self.settings)

    def run_config(self, ops: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
        """Dagster's run configuration: each op's, and the resources' overrides."""
        resources: dict[str, dict[str, Any]] = {}
        for name, value in self._given.items():
            for resource, field in _OVERRIDES[name]:
                resources.setdefault(resource, {"config": {}})["config"][field] = value
        return {
            "ops": {op: {"config": dict(config)} for op, config in ops.items()},
            "resources": resources,
            "loggers": {"console": {}},
        }
