"""adopt: take over the model versions that are in the registry already."""

from collections.abc import Mapping
from typing import Any, get_args

import click

from lora_assets.cli.completions import data_versions, versions_of_others
from lora_assets.cli.result import json_option, print_json, tell
from lora_assets.cli.stack import Stack, stack_options
from lora_assets.errors import LoraAssetsError
from lora_assets.records.model_version import Alias, ModelVersion
from lora_assets.records.run_outcome import RunFailed


@click.command()
@click.option(
    "--model-version",
    type=int,
    help="Take over this one  [default: all with an alias]",
    shell_complete=versions_of_others,
)
@click.option(
    "--data-version",
    help="What it was trained on, where its MLflow run does not say",
    shell_complete=data_versions,
)
@json_option
@stack_options("model_name", "mlflow_tracking_uri")
def adopt(model_version: int | None, data_version: str | None, **options: Any) -> None:
    """Take over model versions that others registered.

    They get tags with the digest of their adapter and their data version. No alias moves and no
    file changes. What is adopted can be restored, compared with and rolled back to.
    """
    if data_version is not None and model_version is None:
        raise click.UsageError("--data-version needs --model-version.")
    stack = Stack(options)
    registry, fleet = stack.known_registry(), stack.resources.fleet
    if model_version is None:
        others = registry.others()
        numbers = sorted({others[alias] for alias in get_args(Alias) if alias in others})
    elif registry.is_ours(model_version):
        _require_trained_on(registry.resolve(f"version:{model_version}"), data_version)
        numbers = []
    else:
        numbers = [model_version]
    if not numbers:
        tell("adopt: nothing to do")
    adopted: list[Mapping[str, Any]] = []
    refused: dict[int, str] = {}
    for number in numbers:
        try:
            with stack.resources.work_folder.temporary() as work:
                version, left = registry.adopt(number, data_version, fleet.max_lora_rank, work)
        except LoraAssetsError as error:
            refused[number] = str(error)
            continue
        told = version.model_dump(include={"version", "data_version", "digest"})
        adopted.append({**told, "left_behind": left})
        beside = f"; left behind: {', '.join(left)}" if left else ""
        tell(
            f"version {number}: digest {version.digest[:12]}, data version "
            f"{version.data_version}{beside}"
        )
    print_json({"adopted": adopted, "refused": refused})
    if refused:
        not_adopted = f"of {registry.model_name} is not adopted"
        raise RunFailed(tuple(f"version {n} {not_adopted}: {why}" for n, why in refused.items()))


def _require_trained_on(version: ModelVersion, data_version: str | None) -> None:
    if data_version not in (None, version.data_version):
        raise LoraAssetsError(
            f"Version {version.version} is ours, of data version {version.data_version}, "
            f"not {data_version}",
            "Leave out --data-version.",
        )
