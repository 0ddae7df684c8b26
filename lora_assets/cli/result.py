"""The result of a command for programs: --json."""

import json
import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

import click

from lora_assets.cli.outputs import Outputs
from lora_assets.lifecycle import STAGES
from lora_assets.records.verdict import GateName, Verdict

if TYPE_CHECKING:
    from lora_assets.resources.registry import Registry

Command = TypeVar("Command", bound=Callable[..., Any])


def json_option(command: Command) -> Command:
    """Add --json."""
    said = "Print JSON for programs  [default: text for people]"
    option = click.option("--json", is_flag=True, expose_value=False, callback=_note, help=said)
    return option(command)


def _note(context: click.Context, _: click.Parameter, given: bool) -> None:
    context.meta[__name__] = given


def wants_json() -> bool:
    """Return whether the command was called with --json: then stdout is for its result alone."""
    context = click.get_current_context(silent=True)
    return bool(context and context.meta.get(__name__))


def tell(line: str) -> None:
    """Print a line of the result for people; on stderr where a program wants the result."""
    click.echo(line, err=wants_json())


def print_json(result: Any, indent: int | None = None) -> bool:
    """Print the result if a program wants it; return whether one does."""
    if wants_json():
        click.echo(_dumped(result, indent))
    return wants_json()


def _dumped(result: Any, indent: int | None = None) -> str:
    """Return it as JSON, which has no infinity and no NaN: null stands in their place."""
    return json.dumps(_finite(result), indent=indent, allow_nan=False)


def _finite(value: Any) -> Any:
    match value:
        case float() if not math.isfinite(value):
            return None
        case Mapping():
            return {name: _finite(each) for name, each in value.items()}
        case list() | tuple():
            return [_finite(each) for each in value]
    return value


def print_result(registry: "Registry", stage: str, outputs: Outputs) -> None:
    """Print what a stage came to: its run, its adapter, and the verdicts of its gates."""
    known = {name.replace("-", "_"): value for name, value in outputs.values.items()}
    result: dict[str, Any] = {"stage": stage, **known}
    if stage in ("promote", "rollback"):
        result |= _change(registry, known.get("run_id"))
    verdicts = {verdict.gate: of_verdict(verdict) for verdict in outputs.verdicts}
    verdicts |= _of_gates(registry, stage, known)
    click.echo(_dumped({**result, "verdicts": verdicts}))


def _change(registry: "Registry", run_id: str | None) -> Mapping[str, str | int | None]:
    """Return what a run did to the live traffic, and the version that lost it."""
    of_run = (each for each in reversed(registry.history()) if each.run_id == run_id)
    done = next(of_run, None) if run_id else None
    return {
        "action": done.action if done else "nothing changed",
        "replaced": done.replaced if done else None,
    }


def _of_gates(registry: "Registry", stage: str, known: Mapping[str, str]) -> Mapping[GateName, Any]:
    """Return the verdicts on this adapter of the gates that the stage has in the registry."""
    gates = [each.gate.name for each in STAGES.values() if each.job == stage and each.gate]
    version, data_version = known.get("model_version"), known.get("data_version", "")
    found = dict(registry.verdicts(registry.resolve(f"version:{version}"))) if version else {}
    if stage == "train":
        run = registry.tracking.newest_trained(data_version, registry.model_name)
        quality = registry.tracking.verdict(run, "quality_gate") if run else None
        found |= {"quality_gate": quality} if quality else {}
    return {
        gate: of_verdict(found[gate])
        for gate in gates
        if gate in found and found[gate].digest == known.get("digest")
    }


def of_verdict(verdict: Verdict) -> Mapping[str, Any]:
    """Return a verdict with its checks by name, number and limit.

    A check that compares with live has the interval of the difference, candidate minus live.
    """
    intervals = {each.measure: [each.lower, each.upper] for each in verdict.paired}
    return {
        "outcome": verdict.outcome,
        "passed": verdict.passed,
        "compared_with": verdict.compared_with,
        "rule": verdict.rule,
        "decided_at": verdict.decided_at,
        "checks": [
            {
                **check.model_dump(),
                "margin": check.margin,
                "passed": check.passed,
                "interval": intervals.get(measure) if versus else None,
            }
            for check in verdict.checks
            for measure, versus, _ in [check.name.partition(" vs live")]
        ],
        "failures": list(verdict.failures),
        "notes": list(verdict.notes),
    }
