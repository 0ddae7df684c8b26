"""Stage commands on a real Dagster, in this process or in one of their own."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import pytest

from lora_assets.assets.served import ensure_loaded
from lora_assets.records.model_version import ModelVersion
from tests.support.commands import command, keep
from tests.support.dagster_services import PATIENCE_S
from tests.support.records import passed_verdict
from tests.support.remote_dagster import RemoteDagster
from tests.support.stack import trained


@dataclass
class Command:
    """A command that is under way, in a process of its own."""

    process: subprocess.Popen[str]
    printed: str = ""

    def read_until(self, text: str) -> None:
        assert self.process.stderr
        while text not in self.printed:
            line = self.process.stderr.readline()
            assert line, f"{text!r} was not printed, but: {self.printed}"
            self.printed += line

    def end(self) -> tuple[int, str]:
        _, rest = self.process.communicate(timeout=PATIENCE_S)
        return self.process.returncode, self.printed + rest


Start = Callable[..., Command]
RunStage = Callable[..., tuple[int, str]]


@pytest.fixture
def start(dagster: RemoteDagster) -> Iterator[Start]:
    """Start a command of a request, by default through the real network and of no workflow."""
    processes: list[subprocess.Popen[str]] = []

    def started(
        request: str, *arguments: str, url: str = dagster.url, workflow: str = ""
    ) -> Command:
        process = subprocess.Popen(
            [sys.executable, "-m", "lora_assets.cli.main", *arguments],
            env={
                **os.environ,
                **dagster.environment,
                "DAGSTER_URL": url,
                "LORA_ASSETS_REQUEST": request,
                "LORA_ASSETS_ARGO_WORKFLOW": workflow,
            },
            stderr=subprocess.PIPE,
            text=True,
        )
        processes.append(process)
        return Command(process)

    yield started
    for process in processes:
        process.kill()
        process.wait()


@pytest.fixture
def run(
    dagster: RemoteDagster, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> RunStage:
    """Run a command in this process: its exit code, and what it printed for a person."""

    def ended(request: str, *arguments: str, **environment: str) -> tuple[int, str]:
        variables = {
            **dagster.environment,
            "DAGSTER_URL": dagster.url,
            "LORA_ASSETS_REQUEST": request,
            **environment,
        }
        code, _, printed = command(arguments, variables, monkeypatch, capfd)
        return (1, f"{printed}{code}\n") if isinstance(code, str) else (code, printed)

    return ended


@pytest.fixture
def request_key() -> str:
    return str(uuid4())


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
    fleet = resources.fleet
    ensure_loaded(resources.registry, fleet.discover(), version, resources.work_folder)
    fleet.discover().renew_slot(fleet.candidate_slot, version.serving_name, version.digest, ("a",))
    keep(resources, "training_data", data)
    keep(resources, "adapter", adapter)
    keep(resources, "staged_deployment", version)
    return version
