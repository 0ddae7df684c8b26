"""rollback and history: the live traffic back, and what had it when."""

from collections.abc import Mapping
from typing import Any

import click
from rich.console import Console
from rich.table import Column, Table

from lora_assets.assets.rollback import Rollback, sentence
from lora_assets.cli.config_options import chosen, config_options
from lora_assets.cli.result import json_option, print_json, tell
from lora_assets.cli.stack import Stack, stack_options
from lora_assets.cli.stage_run import Work, run_stage, write_outputs
from lora_assets.gates.rollback import rejected
from lora_assets.parameters import RollbackOptions
from lora_assets.records import short
from lora_assets.records.history import Change
from lora_assets.records.model_version import Promotion
from lora_assets.records.run_tags import user


@click.command()
@json_option
@click.option("--dry-run", is_flag=True, help="Only say what it would do")
@stack_options("model_name", "mlflow_tracking_uri", "vllm_url", "deployment", "namespace")
@config_options(RollbackOptions)
def rollback(dry_run: bool, **options: Any) -> None:
    """Give the live traffic back to the version that had it before.

    A second one has nothing to do: a version that was rolled back is live again only when it is
    named with --to.
    """
    roll_back(Stack(options), chosen(RollbackOptions, options), dry_run=dry_run)


def roll_back(stack: Stack, config: Mapping[str, Any], *, dry_run: bool = False) -> None:
    """Say what a rollback does, from what to what; then do it, on Dagster's job `rollback`."""
    registry = stack.known_registry()
    standing = registry.standing()
    wanted = Rollback(registry, RollbackOptions(**config))
    planned = wanted.plan(standing)
    if dry_run and print_json(_as_planned(planned)):
        return
    if planned is None:
        tell(f"nothing to do: {wanted.nothing_to_do(standing)}")
        if standing.live is not None:
            data_version = standing.live.data_version
            write_outputs(stack, Work(data_version=data_version, ops={}, version=standing.live))
        return
    tell(f"{'would be a ' if dry_run else ''}{sentence(planned)}")
    if not dry_run:
        version = planned.version
        ops = {"roll_back": config}
        work = Work(data_version=version.data_version, ops=ops, version=version)
        run_stage(stack, "rollback", None, lambda: work)


def _as_planned(planned: Promotion | None) -> Mapping[str, str | int | None]:
    """Return what a rollback would do, under the names that its result has."""
    if planned is None:
        return {"action": "nothing changed"}
    version, replaced = planned.version, planned.replaced
    return {
        "action": planned.action,
        "replaced": replaced.version if replaced else None,
        "model_version": version.version,
        "data_version": version.data_version,
        "digest": version.digest,
    }


@click.command()
@json_option
@click.option("--sign", is_flag=True, help="Sign that live and previous are as the aliases say")
@stack_options("model_name", "mlflow_tracking_uri")
def history(sign: bool, **options: Any) -> None:
    """Show what was live when, by whom and on which evidence.

    The oldest comes first. With LORA_ASSETS_VERDICT_KEY, that is what was signed with it.
    """
    registry = Stack(options).known_registry()
    if sign:
        registry.sign_aliases(user())
    entries = registry.history()
    if print_json([entry.model_dump(mode="json") for entry in entries], indent=2):
        return
    if not entries:
        click.echo(f"nothing was promoted or rolled back in {registry.model_name} yet")
        return
    names = ("", "at", "what", "by", "why", "evidence")
    # Nothing is cut off on a narrow terminal.
    table = Table(*(Column(name, overflow="fold") for name in names), title=registry.model_name)
    for entry in entries:
        table.add_row(str(entry.number), *_row(entry))
    Console(markup=False, emoji=False).print(table)
    for number, mark in rejected(entries).items():
        click.echo(f"version {number} is live again only with --to {number}: {mark.asked}")


def _row(entry: Change) -> tuple[str, ...]:
    # When and where each was decided is for --json and for the pages.
    evidence = "\n".join(each.partition(" of ")[0] for each in entry.evidence)
    what = f"{entry.line}\n{short(entry.digest)}"
    return entry.at.replace("T", " "), what, entry.by, entry.why, evidence
