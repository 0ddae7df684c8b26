"""The end of the demo: the versions with their gates, and three questions to live."""

from collections.abc import Mapping, Sequence

import click
import dagster as dg
from dagster import AssetCheckKey, DagsterInstance
from rich.console import Console
from rich.table import Table

from lora_assets.cli.stack import Stack
from lora_assets.cli.unfinished import evaluations
from lora_assets.records.model_version import ModelVersion

ANSWER_TOKENS = 64
NEXT_STEPS = """
What to type next:
  make ui                                         Dagster, MLflow and the server, over this state
  . .venv/bin/activate                            for the commands below, while 'make ui' runs:
  lora-assets status                              aliases, verdicts, what each replica serves
  lora-assets rollback                            give the live traffic back to the previous adapter
  lora-assets data build --data-version 4 --services s3,ec2,lambda,dynamodb,kafka
  lora-assets train --data-version 4              then: deploy, evaluate, performance, promote
"""


def print_table(stack: Stack, instance: DagsterInstance, data_versions: Sequence[str]) -> None:
    """Print a row per gate and data version: its numbers and thresholds, digests and aliases."""
    registry = stack.resources.registry
    aliases = registry.aliases()
    table = Table("data version", "gate", "verdict", "numbers and thresholds", show_lines=True)
    for name in data_versions:
        for row in gate_rows(name, registry.newest(name), aliases, evaluations(instance, name)):
            table.add_row(*row)
    Console(width=120, markup=False, emoji=False).print(table)


def gate_rows(
    data_version: str,
    version: ModelVersion | None,
    aliases: Mapping[str, ModelVersion],
    verdicts: Mapping[AssetCheckKey, dg.AssetCheckEvaluation],
) -> Sequence[tuple[str, str, str, str]]:
    """Return a data version's rows, one per gate; the first one names the version."""
    names = [alias for alias, holder in aliases.items() if holder == version]
    digest = next(
        (str(e.metadata["digest"].value) for k, e in verdicts.items() if k.name == "quality_gate"),
        "none",
    )
    about = (
        data_version,
        f"digest {digest[:12]}",
        f"model version {version.version if version else 'none'}",
        f"aliases {', '.join(names) or 'none'}",
    )
    return [
        (
            "" if number else "\n".join(about),
            key.name,
            "passed" if evaluation.passed else "FAILED",
            (evaluation.description or "").replace("; ", "\n"),
        )
        for number, (key, evaluation) in enumerate(verdicts.items())
    ]


def print_answers(stack: Stack) -> None:
    """Ask the live slot two questions whose context has the answer, and one whose has not."""
    live = stack.resources.registry.resolve("alias:live")
    _, splits = stack.resources.data_bucket.read(live.data_version, ["eval"])
    answerable = [row for row in splits["eval"] if not row.is_negative]
    negative = next(row for row in splits["eval"] if row.is_negative)
    slot = stack.settings.live_slot
    click.echo(f"\nThree questions to {slot} (version {live.version}):")
    replica = stack.resources.fleet.discover().members[0]
    for row in (*answerable[:2], negative):
        answer = replica.complete(slot, row.prompt_inference, ANSWER_TOKENS)
        click.echo(f"\n  Context:  {row.context.replace(chr(10), chr(10) + ' ' * 12)}")
        click.echo(f"  Question: {row.question}")
        click.echo(f"  Answer:   {answer.text.strip()}")
