"""status: what the aliases say, what the gates said, and what each replica serves."""

import json
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from lora_assets.cli.stack import Stack, stack_options
from lora_assets.errors import LoraAssetsError
from lora_assets.records.registry import ModelVersion
from lora_assets.resources.fleet import Fleet
from lora_assets.resources.registry import Registry


@click.command()
@stack_options("model_name", "mlflow_tracking_uri", "vllm_url")
@click.option("--json", "as_json", is_flag=True, help="Print JSON for programs")
def status(as_json: bool, **options: Any) -> None:
    """Show aliases, versions, digests, verdicts and what each replica serves.

    Exits with 1 when a replica can't be asked.
    """
    stack = Stack(options)
    found = read_status(stack.resources.registry, stack.resources.fleet)
    if as_json:
        click.echo(json.dumps(found, indent=2))
    else:
        print_status(found)
    if any("error" in replica for replica in found["replicas"]):
        raise click.exceptions.Exit(1)


def read_status(registry: Registry, fleet: Fleet) -> dict[str, Any]:
    """Aliases with their versions, verdicts by version, and each replica's adapters or error."""
    aliases = registry.aliases()
    versions = {version.version: version for version in aliases.values()}
    return {
        "model": registry.model_name,
        "aliases": {
            alias: {
                "version": version.version,
                "data_version": version.data_version,
                "digest": version.digest,
            }
            for alias, version in aliases.items()
        },
        "verdicts": {
            str(number): _verdicts(registry, version) for number, version in versions.items()
        },
        "replicas": [_replica(fleet, number) for number in range(len(fleet.replicas))],
    }


def _verdicts(registry: Registry, version: ModelVersion) -> dict[str, Any]:
    return {
        gate: {
            "passed": verdict.passed,
            "compared_with": verdict.compared_with,
            "checks": [str(check) for check in verdict.checks],
            "failures": list(verdict.failures),
        }
        for gate, verdict in registry.verdicts(version).items()
    }


def _replica(fleet: Fleet, number: int) -> dict[str, Any]:
    replica = fleet.replicas[number]
    try:
        loaded = replica.loaded()
    except LoraAssetsError as error:
        return {"url": replica.url, "adapters": {}, "error": str(error)}
    # An adapter's folder is named by its digest, which was verified before it was loaded.
    return {"url": replica.url, "adapters": {name: Path(f).name for name, f in loaded.items()}}


def print_status(found: dict[str, Any]) -> None:
    """The status as tables for a person."""
    console = Console()
    aliases = Table("alias", "version", "data version", "digest", title=found["model"])
    for alias, version in found["aliases"].items():
        aliases.add_row(
            alias, str(version["version"]), version["data_version"], version["digest"][:12]
        )
    console.print(aliases)
    gates = Table("version", "gate", "verdict", "numbers", title="verdicts")
    for number, verdicts in found["verdicts"].items():
        for gate, verdict in verdicts.items():
            outcome = "passed" if verdict["passed"] else "FAILED"
            gates.add_row(number, gate, outcome, "\n".join(verdict["checks"]))
    console.print(gates)
    for replica in found["replicas"]:
        serves = Table("name", "digest", title=replica["url"])
        for name, digest in replica["adapters"].items():
            serves.add_row(name, digest[:12])
        console.print(serves)
        if "error" in replica:
            console.print(f"[red]{replica['error']}")
