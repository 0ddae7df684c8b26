"""Completion of what is typed: names from the bucket and the registry."""

from collections.abc import Mapping
from pathlib import Path

import click
import pytest

from lora_assets.cli.main import cli
from lora_assets.stack_resources import Resources
from tests.support.commands import register
from tests.support.data_versions import drop


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
    assert completed("train", "--lora-config", "s") == ["standard"]


def test_a_registry_that_does_not_answer_completes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LORA_ASSETS_STACK", "nowhere")
    assert completed("rollback", "--to", "") == []
