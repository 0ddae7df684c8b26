"""What a shell completes: data versions, model versions, aliases, and what has fixed choices."""

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Literal, get_args, get_origin

import click

from lora_assets.cli.stack import Stack
from lora_assets.errors import LoraAssetsError
from lora_assets.records.model_version import Alias
from lora_assets.records.training import TrainingParameters
from lora_assets.records.verdict import Rule

if TYPE_CHECKING:
    from lora_assets.stack_resources import Resources

Complete = Callable[[click.Context, click.Parameter, str], list[str]]
_WHERE = ("model_name", "mlflow_tracking_uri", "s3_data_bucket")


def _one_of(names: Iterable[Any]) -> Complete:
    return lambda context, parameter, begun: [str(n) for n in names if str(n).startswith(begun)]


def _known(names: Callable[["Resources"], Iterable[Any]]) -> Complete:
    def complete(context: click.Context, parameter: click.Parameter, begun: str) -> list[str]:
        where = {name: context.params.get(name) for name in _WHERE}
        try:
            return _one_of(names(Stack(where).resources))(context, parameter, begun)
        except LoraAssetsError:
            # Between two keys a shell has no place for an error; the command itself will say it.
            return []

    return complete


data_versions = _known(lambda resources: resources.data_bucket.versions())
model_versions = _known(lambda resources: resources.registry.numbers())
versions_of_others = _known(lambda resources: resources.registry.numbers_of_others())
_aliases = _one_of([f"alias:{alias}" for alias in get_args(Alias)])
_versions = _known(lambda resources: [f"version:{n}" for n in resources.registry.numbers()])


def _sources(context: click.Context, parameter: click.Parameter, begun: str) -> list[str]:
    found = _aliases(context, parameter, begun)
    # The registry takes seconds to ask.
    return found if begun and found else found + _versions(context, parameter, begun)


OF_FIELDS: Mapping[str, Complete] = {
    **{
        name: _one_of(get_args(field.annotation))
        for name, field in TrainingParameters.model_fields.items()
        if get_origin(field.annotation) is Literal
    },
    "decision_rule": _one_of(get_args(Rule)),
    "source_alias": _one_of(get_args(Alias)),
    "adapter_source": _sources,
    "to": model_versions,
}
"""What completes the option of a configuration's field."""

switch = _one_of(("true", "false"))
"""What completes the value of an option that is on or off."""
