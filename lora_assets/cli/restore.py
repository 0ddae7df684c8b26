"""restore: the adapters of the aliases back into this replica's folder, before it serves."""

from collections.abc import Mapping
from pathlib import Path

import click

from lora_assets.cli.result import json_option, print_json, tell
from lora_assets.cli.stack import Stack, stack_options
from lora_assets.serving.drift import KEPT
from lora_assets.serving.plugin_files import place_plugin
from lora_assets.serving.replica_folder import ReplicaFolder, shared_folder
from lora_assets.serving.slot_owner import require_own_slot, require_slot_name


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
    restored, passed_over = restore_adapters(stack, folder)
    for name, digest in restored.items():
        tell(f"{name}: {digest[:12]}")
    if not restored:
        tell(f"{stack.model} has no live adapter yet; nothing to restore")
    print_json({"restored": restored, "passed_over": passed_over})


def restore_adapters(
    stack: Stack, folder: ReplicaFolder
) -> tuple[Mapping[str, str], Mapping[str, str]]:
    """Place and verify the adapters of the aliases; say which aliases are passed over, and why.

    Return the digest of each adapter's own name, and the reason by alias.
    """
    restored: dict[str, str] = {}
    passed_over: dict[str, str] = {}
    aliases = stack.resources.registry.standing().meant
    others = stack.resources.registry.others()
    slots = stack.resources.fleet.slots
    for alias in KEPT:
        if alias in others:
            passed_over[alias] = (
                f"version {others[alias]} of {stack.model} is not ours; 'lora-assets adopt' takes "
                "it over"
            )
            tell(f"{alias} is passed over: {passed_over[alias]}")
        version = aliases.get(alias)
        if version is None:
            continue
        if not folder.intact(version.digest):
            with stack.resources.work_folder.temporary() as work:
                folder.place(stack.resources.registry.download(version, work), version.digest)
        folder.set_name(version.serving_name, version.digest)
        if (slot := slots.get(alias)) is not None:
            require_slot_name(slot)
            require_own_slot(slot, version.serving_name, folder.slots().get(slot), {})
            folder.set_slot(slot, version.serving_name)
        restored[version.serving_name] = version.digest
    return restored, passed_over
