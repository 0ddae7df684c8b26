"""Completion of what is typed: names from the bucket and the registry."""

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import get_args

import click
import pytest

from lora_assets.cli.main import cli
from lora_assets.lifecycle import STEPS
from lora_assets.records.model_version import Alias
from lora_assets.stack_resources import Resources
from tests.support.commands import register
from tests.support.data_versions import drop
from tests.support.scripts_registry import register_by_script


def completed(command: str, option: str, begun: str) -> list[str]:
    context = click.Context(cli)
    found = cli.get_command(context, command)
    assert found is not None
    (wanted,) = (each for each in found.params if option in each.opts)
    return [item.value for item in wanted.shell_complete(click.Context(found), begun)]


def test_versions_and_aliases_are_completed_from_what_is_there(
    environment: Mapping[str, str], resources: Resources, adapter_folders: tuple[Path, ...],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    drop(resources.data_bucket.uri, "10")
    drop(resources.data_bucket.uri, "2")
    register(resources, adapter_folders[0])
    assert completed("train", "--data-version", "") == ["2", "10"]
    assert completed("report", "--data-version", "1") == ["10"]
    assert completed("rollback", "--to", "") == ["1"]
    assert completed("deploy", "--adapter-source", "v") == ["version:1"]
    assert completed("promote", "--source-alias", "perf") == ["perf-passed", "perf-failed"]
    register_by_script(resources.registry, adapter_folders[1])
    assert completed("adopt", "--model-version", "") == ["2"]
    assert completed("adopt", "--data-version", "1") == ["10"]


@pytest.mark.parametrize(
    ("command", "option", "choices"),
    [
        ("train", "--lora-config", ["minimal", "standard", "aggressive", "high_capacity"]),
        ("train", "--lora-method", ["lora", "rslora"]),
        ("check", "--quantization", ["nf4", "none"]),
        ("performance", "--decision-rule", ["specification", "paired"]),
        ("evaluate", "--sequential", ["true", "false"]),
        ("evaluate", "--step", [*STEPS["evaluate"]]),
    ],
)
def test_fixed_choices_are_completed(command: str, option: str, choices: list[str]) -> None:
    assert completed(command, option, "") == choices


@pytest.mark.integration
def test_bash_completes_behind_a_colon_and_an_equals_sign_where_it_breaks_words() -> None:
    expected = {
        "--adapter-source alias : perf-p": "perf-passed",
        "--adapter-source = alias : perf-f": "perf-failed",
        "--adapter-source alias :": " ".join(get_args(Alias)),
        "--adapter-source \\'alias:perf-p": "alias:perf-passed",
        "--adapter-source alias : staged --slot": "--slot-name",
    }
    lines = ['eval "$(_LORA_ASSETS_COMPLETE=bash_source lora-assets)"']
    for words in expected:
        lines.append(f"COMP_WORDS=(lora-assets deploy {words}) COMPREPLY=()")
        lines.append("COMP_CWORD=$((${#COMP_WORDS[@]} - 1))")
        lines.append('_lora_assets_completion lora-assets; echo "${COMPREPLY[*]}"')
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    bash = ["bash", "--norc", "-c", "\n".join(lines)]
    ended = subprocess.run(
        bash, env={**os.environ, "PATH": path}, stdout=subprocess.PIPE, text=True, check=True
    )
    assert ended.stdout.splitlines() == list(expected.values())


def test_a_registry_that_does_not_answer_completes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LORA_ASSETS_STACK", "nowhere")
    assert completed("rollback", "--to", "") == []
