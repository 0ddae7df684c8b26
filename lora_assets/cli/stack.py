"""The stack that a command works on: the environment's, with what its options override."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import click
from filelock import FileLock
from sqlalchemy import make_url

from lora_assets.records import Record
from lora_assets.resources.registry import Registry
from lora_assets.settings import make_resources, read_settings

Command = TypeVar("Command", bound=Callable[..., Any])


class Place(Record):
    """A parameter that says where something is: the setting and the resources' fields it gives."""

    setting: str
    gives: tuple[str, ...]
    help: str


PLACES: Mapping[str, Place] = {
    "model_name": Place(
        setting="model_name", gives=("registry.model_name",), help="MLflow registered model name"
    ),
    "mlflow_tracking_uri": Place(
        setting="mlflow_tracking_uri",
        gives=("registry.tracking_uri", "tracking.tracking_uri"),
        help="MLflow server URL",
    ),
    "s3_data_bucket": Place(
        setting="s3_data_bucket",
        gives=("data_bucket.uri", "io_manager.uri"),
        help="Bucket for training and eval data",
    ),
    "vllm_url": Place(setting="vllm_url", gives=("fleet.vllm_url",), help="vLLM server URL"),
    "deployment": Place(
        setting="vllm_deployment",
        gives=("fleet.deployment",),
        help="Kubernetes deployment whose pods are the vLLM replicas",
    ),
    "namespace": Place(
        setting="vllm_namespace",
        gives=("fleet.namespace",),
        help="Kubernetes namespace of that deployment",
    ),
    "judge_url": Place(setting="judge_url", gives=("judge.judge_url",), help="Judge URL"),
    "judge_model": Place(
        setting="judge_model",
        gives=("judge.judge_model",),
        help="Judge model name (empty: auto-detect)",
    ),
    "prometheus_url": Place(
        setting="prometheus_url",
        gives=("server_metrics.prometheus_url",),
        help="Prometheus URL (empty: each replica's /metrics)",
    ),
}
"""The specification's parameters that say where something is."""


def stack_options(*names: str) -> Callable[[Command], Command]:
    """Add the options that say where something is; their defaults are the environment's."""

    def decorate(command: Command) -> Command:
        for name in reversed(names):
            option, place = f"--{name.replace('_', '-')}", PLACES[name]
            shown = f"{place.help}  [default: that of {place.setting.upper()}]"
            command = click.option(option, name, default=None, help=shown)(command)
        return command

    return decorate


class Stack:
    """The stack's settings and resources, with what the options override."""

    def __init__(self, options: Mapping[str, Any]) -> None:
        self.given = {name: options[name] for name in PLACES if options.get(name) is not None}
        given = {PLACES[name].setting: value for name, value in self.given.items()}
        # What a command runs itself, it runs in its own process.
        self.settings = read_settings().model_copy(update={**given, "executor": "in_process"})
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


def resource_config(
    given: Mapping[str, str], configured: Mapping[str, Mapping[str, Any]]
) -> Mapping[str, Mapping[str, Any]]:
    """A run's configuration of the resources that `given` changes.

    It holds the other fields as they are `configured`, since Dagster takes nothing over from
    its definitions; a secret is the name of its variable there, and stays that.
    """
    changed: dict[str, dict[str, Any]] = {}
    for name, value in given.items():
        for place in PLACES[name].gives:
            resource, _, field = place.partition(".")
            if configured[resource].get(field) != value:
                changed.setdefault(resource, {})[field] = value
    return {
        resource: {"config": {**configured[resource], **fields}}
        for resource, fields in changed.items()
    }
