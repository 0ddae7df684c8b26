"""The stack that a command works on: the environment's, with what its options override."""

from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
from filelock import FileLock

from lora_assets.errors import LoraAssetsError
from lora_assets.records.partition import partition_of
from lora_assets.serving.key_origin import KEYS, keys_withheld
from lora_assets.settings import SETTINGS, fields_given, read_settings

if TYPE_CHECKING:
    from dagster import DagsterInstance

    from lora_assets.resources.registry import Registry
    from lora_assets.stack_resources import Resources

Command = TypeVar("Command", bound=Callable[..., Any])

_ONE_NAME = (
    *("model_name", "mlflow_tracking_uri", "s3_data_bucket", "vllm_url"),
    *("judge_url", "judge_model", "prometheus_url"),
)
OPTIONS: Mapping[str, str] = {
    **{name: name for name in _ONE_NAME},
    **{"deployment": "vllm_deployment", "namespace": "vllm_namespace"},
}
"""Each option that says where something is, with the setting that it overrides."""

_FLEET = ("vllm_url", "deployment", "namespace")
"""The options that name a fleet: each gives the field of its name."""

_REPLICAS = {
    "service": "VLLM_SERVICE",
    "pod_selector": "VLLM_POD_SELECTOR",
    "replica_urls": "VLLM_REPLICAS",
}
"""The fields that name replicas whatever the options say, with their variables."""


def stack_options(*names: str) -> Callable[[Command], Command]:
    """Add options that say where something is; each defaults to the environment's setting."""

    def decorate(command: Command) -> Command:
        for name in reversed(names):
            setting = SETTINGS[OPTIONS[name]]
            shown = f"{setting.help}  [default: value of {setting.variable}]"
            option = f"--{name.replace('_', '-')}"
            command = click.option(option, name, default=None, help=shown)(command)
        return command

    return decorate


class Stack:
    """The stack's settings and resources, with what the options override.

    A command that only follows a run never makes the resources, which need Dagster.
    """

    def __init__(self, options: Mapping[str, Any]) -> None:
        self.given = {name: options[name] for name in OPTIONS if options.get(name) is not None}
        environment = read_settings()
        told = with_fleet(self.given, fields_given(environment)["fleet"])
        # The model of a run is that of its partition: the settings keep the deployment's own.
        given = {OPTIONS[name]: value for name, value in told.items() if name != "model_name"}
        self.model: str = self.given.get("model_name", environment.model_name)
        self._configured: Mapping[str, str] = {
            name: getattr(environment, OPTIONS[name]) for name in OPTIONS
        }
        withheld = keys_withheld(self.given, self._configured)
        for key in (key for key in withheld if getattr(environment, key)):
            _say_withheld(key)
        # What a command runs itself, it runs in its own process.
        self.settings = environment.model_copy(
            update={**given, **withheld, "executor": "in_process"}
        )
        partition_of("", self.model, self.settings.model_name)

    @cached_property
    def resources(self) -> "Resources":
        """The clients of the command's model."""
        from lora_assets.stack_resources import make_resources

        resources = make_resources(self.settings).of_model(self.model)
        _create_database(resources.registry)
        return resources

    def known_registry(self) -> "Registry":
        """Return the registry; refuse a model that was typed and is not there.

        Of the configured model there may be nothing yet.
        """
        from lora_assets.resources.overview import require_model

        registry = self.resources.registry
        if "model_name" in self.given:
            require_model(registry)
        return registry

    def names_another(self, option: str) -> bool:
        """Return whether an option was given that differs from the environment's setting."""
        return option in self.given and self.given[option] != self._configured[option]

    def open_instance(self) -> "DagsterInstance":
        """Return Dagster's storage for runs in this process."""
        from lora_assets.local.instance import open_instance

        return open_instance(self.settings.dagster_home, managed=self.settings.manages_dagster_home)


def typed_command(otherwise: str) -> str:
    """Return the command that a person or Argo gave, as in "lora-assets train"."""
    command = click.get_current_context(silent=True)
    return command.command_path if command else otherwise


def _create_database(registry: "Registry") -> None:
    """Let one command create a registry's SQLite file: two at once fail on each other's tables."""
    if not registry.tracking_uri.startswith("sqlite"):
        return
    from sqlalchemy import make_url

    path = Path(make_url(registry.tracking_uri).database or "")
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{path}.lock"):
        if not path.exists():
            registry.aliases()


def with_fleet(given: Mapping[str, str], fleet: Mapping[str, Any]) -> Mapping[str, str]:
    """Return the options `given` with what they mean beside the fleet that is configured.

    A --vllm-url other than the configured one is that server alone, unless another deployment
    is named with it. Raise LoraAssetsError for an option that would change nothing.
    """
    others = {
        name: given[name]
        for name in _FLEET
        if name in given and given[name].rstrip("/") != str(fleet.get(name) or "").rstrip("/")
    }
    for name, value in others.items():
        option = f"--{name.replace('_', '-')}"
        for field, variable in _REPLICAS.items():
            if named := fleet.get(field):
                raise LoraAssetsError(
                    f"{option} {value} is not the fleet that {variable} names ({named})",
                    f"Leave {option} out, or unset {variable} where the runs take place.",
                )
    if others.keys() == {"namespace"} and not (given.get("deployment") or fleet.get("deployment")):
        raise LoraAssetsError(
            f"--namespace {others['namespace']} needs --deployment",
            "Give --deployment too, or leave --namespace out.",
        )
    alone = others.keys() == {"vllm_url"} and fleet.get("deployment")
    return {**given, "deployment": ""} if alone else given


def _say_withheld(key: str) -> None:
    variable = SETTINGS[key].variable
    click.echo(f"{variable} is not sent: it is for the configured server alone", err=True)


def resource_config(
    given: Mapping[str, str], configured: Mapping[str, Mapping[str, Any]]
) -> Mapping[str, Mapping[str, Any]]:
    """Return a run's configuration of the resources that the options `given` change.

    It holds their other fields as they are `configured`, since Dagster takes nothing over from
    its definitions. A secret stays the name of its variable, but for `keys_withheld`.
    The model is the partition's.
    """
    changed: dict[str, dict[str, Any]] = {}
    told = with_fleet(given, configured.get("fleet", {}))
    for name, value in told.items():
        if name == "model_name":
            continue
        for resource, _, field in (each.partition(".") for each in SETTINGS[OPTIONS[name]].gives):
            if configured[resource].get(field, "") != value:
                changed.setdefault(resource, {})[field] = value
    urls = {option: SETTINGS[option].gives[0].partition(".") for option in KEYS}
    there = {o: str(configured.get(r, {}).get(f, "")) for o, (r, _, f) in urls.items()}
    for key in keys_withheld(given, there):
        resource, _, field = SETTINGS[key].gives[0].partition(".")
        if configured[resource].get(field):
            changed.setdefault(resource, {})[field] = ""
            _say_withheld(key)
    return {
        resource: {"config": {**configured[resource], **fields}}
        for resource, fields in changed.items()
    }
