"""--json: the result of a stage for programs."""

import json
from pathlib import Path
from typing import Any

import click
import pytest

from lora_assets.cli.outputs import Outputs
from lora_assets.cli.result import of_verdict, print_result
from lora_assets.records.verdict import Check, PairedEvidence, Verdict
from lora_assets.stack_resources import Resources
from tests.support.commands import commands, register
from tests.support.records import model_version, passed_verdict

COUNTED = {"measure": "a_rate", "rows": 100, "only_candidate": 3, "only_live": 5}
EVIDENCE = PairedEvidence(**COUNTED, lower=-0.06, upper=0.02, margin=0.03, confidence=0.95)
CHECKS = (
    Check(name="a_rate vs live, lower limit", measured=-0.06, comparison=">", limit=-0.03),
    Check.at_least("refusal_rate", 0.95, 0.9),
    Check.at_most("ratio", float("inf"), 1.15),
)


FOR_PEOPLE = {"terminate", "serve", "demo", "data describe"}
"""Commands that work until they are stopped, or print a text."""


def test_every_command_with_a_result_prints_it_for_programs() -> None:
    without = {
        name
        for name, command in commands()
        if not isinstance(command, click.Group)
        and not any("--json" in option.opts for option in command.params)
    }
    assert without == FOR_PEOPLE


def verdict(digest: str) -> Verdict:
    passed = passed_verdict("eval_gate", model_version(digest=digest), None)
    return passed.model_copy(update={"rule": "paired", "checks": CHECKS, "paired": (EVIDENCE,)})


def test_a_check_has_its_number_its_limit_and_the_interval_where_it_compares_with_live() -> None:
    compared, absolute, _ = of_verdict(verdict("a" * 64))["checks"]
    assert (compared["measured"], compared["comparison"], compared["limit"]) == (-0.06, ">", -0.03)
    assert compared["interval"] == [-0.06, 0.02]
    assert (compared["margin"], compared["passed"]) == (pytest.approx(-0.03), False)
    assert (absolute["name"], absolute["interval"]) == ("refusal_rate", None)


def test_a_result_has_the_gates_of_its_stage_on_its_own_adapter_alone(
    resources: Resources, adapter_folders: tuple[Path, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    version = register(resources, adapter_folders[0])
    outputs = Outputs(None)
    outputs.write("model-version", str(version.version))
    outputs.write("data-version", "1")
    outputs.write("digest", version.digest)
    resources.registry.store_verdict(version, verdict(version.digest))

    def printed(stage: str) -> dict[str, Any]:
        print_result(resources.registry, stage, outputs)
        found: dict[str, Any] = json.loads(capsys.readouterr().out)
        return found

    found = printed("evaluate")
    *finite, infinite = found["verdicts"]["eval_gate"]["checks"]
    assert finite == of_verdict(verdict(version.digest))["checks"][:2]
    assert (infinite["name"], infinite["measured"], infinite["margin"]) == ("ratio", None, None)
    assert (found["stage"], found["model_version"]) == ("evaluate", "1")
    assert printed("performance")["verdicts"] == {}
    resources.registry.store_verdict(version, verdict("b" * 64))
    assert printed("evaluate")["verdicts"] == {}
