"""What the demo ends with: the versions and their gates, and three questions to live."""

from collections.abc import Sequence

import click
from dagster import DagsterInstance
from rich.console import Console
from rich.table import Table

from lora_assets.cli.history import evaluations
from lora_assets.cli.stack import Stack
from lora_assets.resources.fleet import LIVE_SLOT

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
    """One row per gate and data version: its numbers and thresholds; digests and aliases."""
    aliases = stack.resources.registry.aliases()
    table = Table("data version", "gate", "verdict", "numbers and thresholds", show_lines=True)
    for data_version in data_versions:
        version = stack.resources.registry.newest(data_version)
        found = evaluations(instance, data_version)
        names = [alias for alias, holder in aliases.items() if holder == version]
        digest = next(
            (str(e.metadata["digest"].value) for k, e in found.items() if k.name == "quality_gate"),
            "none",
        )
        label = "\n".join(
            (
                data_version,
                f"digest {digest[:12]}",
                f"model version {version.version if version else 'none'}",
                f"aliases {', '.join(names) or 'none'}",
            )
        )
        for key, evaluation in found.items():
            numbers = (evaluation.description or "").replace("; ", "\n")
            table.add_row(label, key.name, "passed" if evaluation.passed else "FAILED", numbers)
            label = ""
    Console(width=120).print(table)


def print_answers(stack: Stack) -> None:
    """Two questions with an answer in their context and one without, put to the live slot."""
    live = stack.resources.registry.resolve("alias:live")
    _, splits = stack.resources.data_bucket.read(live.data_version)
    answerable = [row for row in splits["eval"] if not row.is_negative]
    negative = next(row for row in splits["eval"] if row.is_negative)
    click.echo(f"\nThree questions to {LIVE_SLOT} (version {live.version}):")
    replica = stack.resources.fleet.replicas[0]
    for row in (*answerable[:2], negative):
        answer = replica.complete(LIVE_SLOT, row.prompt_inference, ANSWER_TOKENS)
        click.echo(f"\n  Context:  {row.context.replace(chr(10), chr(10) + ' ' * 12)}")
        click.echo(f"  Question: {row.question}")
        click.echo(f"  Answer:   {answer.text.strip()}")


def print_next_steps() -> None:
    """What a newcomer may want to try."""
    click.echo(NEXT_STEPS)
