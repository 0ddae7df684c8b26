"""What a shell completes: data versions, model versions, aliases, profiles."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, get_args

import click

from lora_assets.errors import LoraAssetsError
from lora_assets.records.model_version import Alias
from lora_assets.records.training import LORA_PROFILES
from lora_assets.settings import read_settings

if TYPE_CHECKING:
    from lora_assets.stack_resources import Resources

Complete = Callable[[click.Context, click.Parameter, str], list[str]]


def _known(names: Callable[["Resources"], Iterable[Any]]) -> Complete:
    def complete(context: click.Context, parameter: click.Parameter, begun: str) -> list[str]:
        from lora_assets.stack_resources import make_resources

        try:
            found = [str(name) for name in names(make_resources(read_settings()))]
        except LoraAssetsError:
            # Between two keys a shell has no place for an error; the command itself will say it.
            found = []
        return [name for name in found if name.startswith(begun)]

    return complete


def _sources(resources: "Resources") -> Sequence[str]:
    numbers = [f"version:{number}" for number in resources.registry.numbers()]
    return [*(f"alias:{alias}" for alias in get_args(Alias)), *numbers]


data_versions = _known(lambda resources: resources.data_bucket.versions())
model_versions = _known(lambda resources: resources.registry.numbers())

OF_FIELDS: Mapping[str, Complete] = {
    "lora_config": _known(lambda _: LORA_PROFILES),
    "decision_rule": _known(lambda _: ("specification", "paired")),
    "source_alias": _known(lambda _: get_args(Alias)),
    "adapter_source": _known(_sources),
    "to": model_versions,
}
"""What completes the option of a configuration's field."""
