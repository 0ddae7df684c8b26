"""Stage commands on a real Dagster, in this process or in one of their own."""

import json
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from lora_assets.records.model_version import ModelVersion
from lora_assets.remote.webserver import Run
from tests.support.commands import Command, command, keep, serve, started
from tests.support.records import passed_verdict
from tests.support.remote_dagster import RemoteDagster
from tests.support.stack import trained

TRAIN = ("train", "--data-version", "1")


@dataclass(frozen=True)
class Stages:
    """Stage commands of one request, in this process or in one of their own."""

    dagster: RemoteDagster
    monkeypatch: pytest.MonkeyPatch
    capfd: pytest.CaptureFixture[str]
    request: str = field(default_factory=lambda: str(uuid4()))
    processes: list[subprocess.Popen[str]] = field(default_factory=list)

    def runs(self) -> list[Run]:
        return self.dagster.runs(self.request)

    def statuses(self) -> list[str]:
        return [run.status for run in self.runs()]

    def run(self, *arguments: str, **environment: str) -> tuple[int, str]:
        """Run a command in this process: its exit code, and what it printed for a person."""
        variables = self._environment(self.dagster.url) | environment
        code, _, printed = command(arguments, variables, self.monkeypatch, self.capfd)
        return (1, f"{printed}{code}\n") if isinstance(code, str) else (code, printed)

    def result(self, *arguments: str) -> Any:
        """Run a command in this process; what it printed for a program."""
        variables = self._environment(self.dagster.url)
        return json.loads(
            command((*arguments, "--json"), variables, self.monkeypatch, self.capfd).out
        )

    def start(self, *arguments: str, url: str | None = None, **environment: str) -> Command:
        """Start a command in a process of its own, by default through the real network."""
        process = started(arguments, self._environment(url or self.dagster.url) | environment)
        self.processes.append(process)
        return Command(process)

    def start_queued(self, *arguments: str, url: str | None = None, **environment: str) -> Command:
        """Start a command; return it when its run is in the queue."""
        attempt = self.start(*arguments, url=url, **environment)
        attempt.read_until("queued")
        return attempt

    def _environment(self, url: str) -> dict[str, str]:
        where = {"DAGSTER_URL": url, "LORA_ASSETS_REQUEST": self.request}
        return {**self.dagster.environment, **where}


@pytest.fixture
def stages(
    dagster: RemoteDagster, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Iterator[Stages]:
    commands = Stages(dagster, monkeypatch, capfd)
    yield commands
    for process in commands.processes:
        process.kill()
        process.wait()


def outputs(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in folder.iterdir()}


@pytest.fixture(scope="package")
def staged(dagster: RemoteDagster, adapter_folders: tuple[Path, ...]) -> ModelVersion:
    """An adapter of data version 1 in the candidate slot, with its smoke test passed."""
    resources = dagster.resources
    data, _ = resources.data_bucket.read("1")
    adapter = trained(resources, adapter_folders[0], "1").model_copy(
        update={"data_digest": data.digest}
    )
    version = resources.registry.register(adapter)
    resources.registry.store_verdict(version, passed_verdict("smoke_test", version, None))
    resources.registry.set_alias("candidate", version)
    resources.registry.set_alias("staged", version)
    serve(resources, version, resources.fleet.candidate_slot)
    keep(resources, "training_data", data)
    keep(resources, "adapter", adapter)
    keep(resources, "staged_deployment", version)
    return version
