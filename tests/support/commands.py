"""The command line in this process, and what it is run on."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import click
import pytest

from lora_assets.assets.served import ensure_loaded
from lora_assets.cli.main import cli, main
from lora_assets.records import Record
from lora_assets.records.model_version import Alias, ModelVersion
from lora_assets.stack_resources import Resources
from tests.support.dagster_services import PATIENCE_S
from tests.support.stack import trained


class Ended(NamedTuple):
    """How a command ended: 0 or the message with which it exited, and what it printed."""

    code: int | str
    out: str
    err: str


Run = Callable[..., tuple[str | int, str]]
Output = Callable[..., str]


def commands(group: click.Group = cli, named: str = "") -> Iterator[tuple[str, click.Command]]:
    """Each command, and those of a group after it, with the words that a person types."""
    context = click.Context(group)
    for name in group.list_commands(context):
        found = group.get_command(context, name)
        assert found is not None
        yield f"{named}{name}", found
        if isinstance(found, click.Group):
            yield from commands(found, f"{name} ")


def command(
    arguments: Sequence[str],
    environment: Mapping[str, str],
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> Ended:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("sys.argv", ["lora-assets", *arguments])
    capfd.readouterr()
    with pytest.raises(SystemExit) as ended:
        main()
    return Ended(ended.value.code or 0, *capfd.readouterr())


@dataclass
class Command:
    """A command under way, in a process of its own: its errors alone, where they come apart."""

    process: subprocess.Popen[str]
    printed: str = ""

    def read_until(self, text: str) -> None:
        stream = self.process.stderr or self.process.stdout
        assert stream
        while text not in self.printed:
            line = stream.readline()
            assert line, f"{text!r} was not printed, but: {self.printed}"
            self.printed += line

    def end(self) -> tuple[int, str]:
        """Return its exit code, and all that it has printed."""
        out, err = self.process.communicate(timeout=PATIENCE_S)
        return self.process.returncode, self.printed + (err or out or "")


def started(words: Sequence[str], environment: Mapping[str, str]) -> subprocess.Popen[str]:
    """Start a command in a process of its own, its errors among what it prints."""
    return subprocess.Popen(
        [sys.executable, "-m", "lora_assets.cli.main", *words],
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Run:
    """Run a command in an environment; how it ended and what it printed."""

    def ended(environment: Mapping[str, str], *arguments: str) -> tuple[str | int, str]:
        return command(arguments, environment, monkeypatch, capfd)[:2]

    return ended


@pytest.fixture
def output(run: Run) -> Output:
    """Run a command in an environment; what it printed, or the message of its failure."""

    def command(environment: Mapping[str, str], *arguments: str) -> str:
        ended, printed = run(environment, *arguments)
        return str(ended) if ended else printed

    return command


def register(
    resources: Resources, folder: Path, *aliases: Alias, data_digest: str | None = None
) -> ModelVersion:
    adapter = trained(resources, folder, "1")
    if data_digest is not None:
        adapter = adapter.model_copy(update={"data_digest": data_digest})
    version = resources.registry.register(adapter)
    for alias in aliases:
        resources.registry.set_alias(alias, version)
    return version


def serve(resources: Resources, version: ModelVersion, slot: str) -> None:
    ensure_loaded(resources.registry, resources.fleet.discover(), version, resources.work_folder)
    resources.fleet.discover().renew_slot(slot, version.serving_name, version.digest)


def keep(resources: Resources, asset: str, record: Record) -> None:
    """What an asset leaves of data version 1 for the runs after it."""
    key = f"lora-assets/records/{asset}/1.json"
    resources.io_manager.store.put(key, record.model_dump_json().encode())


def spoil(weights: Path) -> None:
    weights.write_bytes(weights.read_bytes()[:-1] + b"!")
