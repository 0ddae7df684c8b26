"""The stack that a command works on: the environment's, with what its options override."""

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import click

from lora_assets.environment import make_resources, read_settings

Command = TypeVar("Command", bound=Callable[..., Any])

_PLACES: Mapping[str, str] = {
    "model_name": "MLflow registered model name",
    "mlflow_tracking_uri": "MLflow server URL",
    "s3_data_bucket": "Bucket for training and eval data",
    "vllm_url": "vLLM server URL",
    "judge_url": "Judge URL",
    "judge_model": "Judge model name (empty: auto-detect)",
    "prometheus_url": "Prometheus URL (empty: each replica's /metrics)",
}
"""The specification's parameters that say where something is."""


def stack_options(*names: str) -> Callable[[Command], Command]:
    """Add the options that say where something is; their defaults are the environment's."""

    def decorate(command: Command) -> Command:
        for name in reversed(names):
            option = f"--{name.replace('_', '-')}"
            command = click.option(option, name, default=None, help=_PLACES[name])(command)
        return command

    return decorate


class Stack:
    """The stack's settings and resources, with what the options override."""

    def __init__(self, options: Mapping[str, Any]) -> None:
        given = {name: options[name] for name in _PLACES if options.get(name) is not None}
        # What a command runs itself, it runs in its own process.
        self.settings = read_settings().model_copy(update={**given, "executor": "in_process"})
        self.resources = make_resources(self.settings)
