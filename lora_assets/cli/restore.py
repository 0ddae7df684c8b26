"""restore: the adapters of the aliases back into this replica's folder, before it serves."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import click

from lora_assets.cli.result import json_option, print_json, tell
from lora_assets.cli.stack import Stack, stack_options
from lora_assets.serving.drift import KEPT
from lora_assets.serving.plugin_files import place_plugin
from lora_assets.serving.replica_folder import ReplicaFolder, shared_folder

if TYPE_CHECKING:
    from lora_assets.stack_resources import Resources


@click.command()
@json_option
@stack_options("model_name", "mlflow_tracking_uri")
@click.option(
    "--plugin-dir",
    type=click.Path(path_type=Path, file_okay=False),
    help="Also put there what vLLM's --middleware loads; a PYTHONPATH for vLLM",
)
def restore(plugin_dir: Path | None, **options: str | None) -> None:
    """Put live, staged and previous into ADAPTERS_DIR.

    A replica's init container runs this. It succeeds too where no adapter is live yet.
    """
    if plugin_dir is not None:
        place_plugin(plugin_dir)
    stack = Stack(options)
    folder = shared_folder(stack.settings.adapters_dir)
    restored, passed_over = restore_adapters(stack.resources, folder)
    for name, digest in restored.items():
        tell(f"{name}: {digest[:12]}")
    if not restored:
        tell(f"{stack.model} has no live adapter yet; nothing to restore")
    print_json({"restored": restored, "passed_over": passed_over})


def restore_adapters(
    resources: "Resources", folder: ReplicaFolder
) -> tuple[Mapping[str, str], Mapping[str, str]]:
    """Place and verify the adapters of the aliases; say which aliases are passed over, and why.

    Return the digest of each adapter's own name, and the reason by alias.
    """
    # It takes Dagster.
    from lora_assets.assets.served import put_in_folder

    restored: dict[str, str] = {}
    passed_over: dict[str, str] = {}
    registry, slots = resources.registry, resources.fleet.slots
    aliases, others = registry.standing().meant, registry.others()
    for alias in KEPT:
        if alias in others:
            passed_over[alias] = (
                f"version {others[alias]} of {registry.model_name} is not ours; 'lora-assets "
                "adopt' takes it over"
            )
            tell(f"{alias} is passed over: {passed_over[alias]}")
        version = aliases.get(alias)
        if version is None:
            continue
        put_in_folder(registry, folder, version, resources.work_folder, slots.get(alias))
        restored[version.serving_name] = version.digest
    if registry.standing().meant != aliases:
        # A promotion came in between, and did not see this replica.
        return restore_adapters(resources, folder)
    return restored, passed_over
