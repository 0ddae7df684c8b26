"""What the deployment image has is enough: the package without extras but the cluster's."""

import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Sequence
from importlib.metadata import packages_distributions, requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from lora_assets.cli.main import cli

PROJECT = Path(__file__).parent.parent

BLOCKED_IMPORTS = """
import importlib, json, sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in absent:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

absent = set(json.loads(sys.argv[1]))
sys.meta_path.insert(0, Absent())
"""


def _name(distribution: str) -> str:
    return re.sub(r"[-_.]+", "-", distribution).lower()


def _with_what_they_require(wanted: Sequence[str]) -> set[str]:
    """The distributions that an installation of these requirements has."""
    found: set[tuple[str, str]] = set()
    left = [Requirement(line) for line in wanted]
    while left:
        requirement = left.pop()
        name = _name(requirement.name)
        for extra in {"", *requirement.extras}:
            if (name, extra) in found:
                continue
            found.add((name, extra))
            needed = [Requirement(line) for line in requires(name) or []]
            left += [r for r in needed if r.marker is None or r.marker.evaluate({"extra": extra})]
    return {name for name, _ in found}


@pytest.fixture(scope="module")
def absent() -> str:
    """The modules installed here that the deployment image has not, as JSON."""
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    present = _with_what_they_require([*project["dependencies"], *extras["cluster"]])
    modules = [
        module
        for module, owners in packages_distributions().items()
        if module != "lora_assets" and not {_name(owner) for owner in owners} & present
    ]
    assert {"torch", "transformers", "peft", "accelerate", "bitsandbytes"} <= set(modules)
    return json.dumps(modules)


def _run(program: str, absent: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", BLOCKED_IMPORTS + program, absent]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_the_code_location_and_every_command_load_without_torch(absent: str) -> None:
    program = f"""
import click
import lora_assets.definitions
from lora_assets.cli.main import cli
for name in {list(cli.list_commands(None))!r}:
    command = cli.get_command(click.Context(cli), name)
    command.get_help(click.Context(command))
    print(name)
"""
    ended = _run(program, absent)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.split() == cli.list_commands(None)


def test_what_is_blocked_is_really_absent(absent: str) -> None:
    ended = _run("import lora_assets.training.qlora", absent)
    assert "No module named 'torch'" in ended.stderr
