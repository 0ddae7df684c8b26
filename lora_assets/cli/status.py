"""status: the aliases, the verdicts of the gates, and what each replica serves."""

from collections.abc import Mapping
from typing import Any

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from lora_assets.cli.result import json_option, of_verdict, print_json
from lora_assets.cli.stack import Stack, stack_options
from lora_assets.errors import LoraAssetsError
from lora_assets.lifecycle import GATES
from lora_assets.records import short
from lora_assets.records.model_version import ModelVersion
from lora_assets.records.verdict import Check
from lora_assets.resources.fleet import Fleet
from lora_assets.resources.overview import StoppedVersion, stopped_versions
from lora_assets.resources.registry import Registry
from lora_assets.resources.server_metrics import metrics_of
from lora_assets.resources.signature import VERDICT_KEY
from lora_assets.serving.drift import drifts
from lora_assets.serving.replica import Replica

STOPPED_SHOWN = 10


@click.command()
@stack_options("model_name", "mlflow_tracking_uri", "vllm_url", "deployment", "namespace")
@json_option
def status(**options: Any) -> None:
    """Show aliases, verdicts, what a gate stopped, and replicas.

    Exit with 0 only when every replica serves what the model's aliases say. Aliases of others, and
    those of versions that are not adopted, are shown and passed over.
    """
    stack = Stack(options)
    report = read_status(stack)
    if not print_json(report, indent=2):
        print_status(report)
    if not report["agrees"]:
        raise click.exceptions.Exit(1)


def read_status(stack: Stack) -> dict[str, Any]:
    """Return the aliases, verdicts, what gates stopped, and each replica's adapters or error."""
    registry, fleet = stack.known_registry(), stack.resources.fleet
    standing = registry.standing()
    aliases = standing.aliases
    versions = {version.version: version for version in aliases.values()}
    replicas = [
        _replica(replica, standing.meant, fleet, registry.model_name)
        for replica in fleet.discover().members
    ]
    return {
        "model": registry.model_name,
        "aliases": {
            alias: version.model_dump(include={"version", "data_version", "digest"})
            for alias, version in aliases.items()
        },
        "others": {alias: {"version": number} for alias, number in registry.others().items()},
        "verdicts": {
            str(number): _verdicts(registry, version) for number, version in versions.items()
        },
        "stopped": [_stopped(each) for each in stopped_versions(registry, STOPPED_SHOWN)],
        "replicas": replicas,
        "signatures": bool(registry.verdict_key),
        "drift": [standing.alias_drift] if standing.alias_drift else [],
        "agrees": bool(replicas)
        and standing.alias_drift is None
        and all(replica["agrees"] for replica in replicas),
    }


def _verdicts(registry: Registry, version: ModelVersion) -> dict[str, Any]:
    return {gate: of_verdict(verdict) for gate, verdict in registry.verdicts(version).items()}


def _stopped(each: StoppedVersion) -> dict[str, Any]:
    return {
        "data_version": each.data_version,
        "version": each.version,
        "gate": each.verdict.gate,
        "failures": list(each.verdict.failures),
    }


def _replica(
    replica: Replica, aliases: Mapping[str, ModelVersion], fleet: Fleet, model: str
) -> dict[str, Any]:
    named = {"name": replica.name, "url": replica.url}
    try:
        metrics_of(replica)
        served = replica.served()
    except LoraAssetsError as error:
        return {**named, "adapters": {}, "agrees": False, "error": str(error)}
    drift = drifts(aliases, fleet.live_slot, fleet.candidate_slot, [served])
    return {
        **named,
        "adapters": served.of_model(model, fleet.slots.values()),
        "damaged": list(served.damaged),
        "strangers": list(served.strangers),
        "agrees": not drift,
        "drift": [str(each) for each in drift],
    }


def print_status(report: dict[str, Any]) -> None:
    """Print the status as tables."""
    # Names and messages from elsewhere print as they are: "[fe80::1]" is no markup.
    console = Console(markup=False, emoji=False)
    aliases = Table("alias", "version", "data version", "digest", title=report["model"])
    for alias, version in report["aliases"].items():
        aliases.add_row(
            alias, str(version["version"]), version["data_version"], version["digest"][:12]
        )
    for alias, other in report["others"].items():
        aliases.add_row(alias, str(other["version"]), "not ours", "not known")
    console.print(aliases)
    if not report["signatures"]:
        console.print(f"Signatures of verdicts and history are not checked: no {VERDICT_KEY}.")
    for problem in report["drift"]:
        console.print(Text(problem, "red"))
    gates = Table("version", "gate", "verdict", "numbers", title="verdicts")
    for number, verdicts in report["verdicts"].items():
        for gate, verdict in verdicts.items():
            outcome = "FAILED" if verdict["outcome"] == "failed" else verdict["outcome"]
            fields = [
                {name: each[name] for name in Check.model_fields} for each in verdict["checks"]
            ]
            numbers = [str(Check(**given)) for given in fields]
            gates.add_row(number, gate, outcome, "\n".join(numbers))
    console.print(gates)
    if report["stopped"]:
        stopped = Table("data version", "version", "gate", "why", "what to do", title="stopped")
        for each in report["stopped"]:
            version, why = str(each["version"] or "none"), "\n".join(each["failures"])
            name, remedy = each["data_version"], GATES[each["gate"]].remedy
            stopped.add_row(name, version, each["gate"], why, remedy)
        console.print(stopped)
    for replica in report["replicas"]:
        serves = Table("name", "digest", title=replica["name"])
        for name, digest in replica["adapters"].items():
            serves.add_row(name, short(digest))
        console.print(serves)
        for problem in [*replica.get("drift", ()), *filter(None, [replica.get("error")])]:
            console.print(Text(problem, "red"))
        for stranger in replica.get("strangers", ()):
            console.print(Text(f"nobody deployed this: {stranger}", "yellow"))
    console.print(Text(agreement(report)))


def agreement(report: Mapping[str, Any]) -> str:
    """Return the last line of the status: whether all replicas serve what the aliases say."""
    replicas = report["replicas"]
    if not replicas:
        return "There is no replica."
    differing = [replica["name"] for replica in replicas if not replica["agrees"]]
    if not differing and report["drift"]:
        return f"The aliases differ: {report['drift'][0]}"
    if not differing:
        return f"All replicas agree with the aliases ({len(replicas)})."
    return f"{len(differing)} of {len(replicas)} replicas differ: {', '.join(differing)}."
