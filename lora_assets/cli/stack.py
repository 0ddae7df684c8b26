"""The stack that a command works on: the environment's, with what its options override."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import click
from filelock import FileLock
from sqlalchemy import make_url

from lora_assets.environment import make_resources, read_settings
from lora_assets.resources.registry import Registry

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
        self.settings = read_settings().model_copy(update=given)
        self.resources = make_resources(self.settings)
        _make_database(self.resources.registry)


def _make_database(registry: Registry) -> None:
    """Let one command make a registry that is a file: two at once fail on each other's tables."""
    if not registry.tracking_uri.startswith("sqlite:"):
        return
    path = Path(make_url(registry.tracking_uri).database or "")
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{path}.lock"):
        if not path.exists():
            registry.aliases()
