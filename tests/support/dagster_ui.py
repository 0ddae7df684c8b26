"""Dagster's webserver and daemon over a stack's state, as 'make ui' starts them."""

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from lora_assets.embedded.child import is_healthy, start_child
from lora_assets.local.instance import open_instance
from lora_assets.settings import read_settings
from tests.support.stack import free_port

WORKSPACE = Path(__file__).parents[2] / "workspace.yaml"
START_SECONDS = 600.0
STOP_SECONDS = 20.0


@dataclass(frozen=True)
class DagsterUi:
    """Where it is, the process behind it, and what that prints."""

    url: str
    process: subprocess.Popen[bytes]
    log: Path


@contextmanager
def dagster_ui(environment: Mapping[str, str]) -> Iterator[DagsterUi]:
    """A UI for as long as the block; it is there when `await_ui` returns."""
    settings = read_settings(environment)
    open_instance(settings.dagster_home, managed=True)
    port = free_port()
    command = [sys.executable, "-m", "dagster", "dev", "--workspace", str(WORKSPACE)]
    command += ["--host", "127.0.0.1", "--port", str(port)]
    variables = {**os.environ, **environment, "DAGSTER_HOME": str(settings.dagster_home)}
    log = settings.home / "dagster-dev.log"
    with log.open("wb") as output:
        process = start_child(command, variables, output)
    try:
        yield DagsterUi(f"http://127.0.0.1:{port}", process, log)
    finally:
        # Killed, it would leave its webserver, daemon and code server behind.
        own = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
        process.terminate()
        for left in psutil.wait_procs(own, STOP_SECONDS)[1]:
            left.kill()


def await_ui(ui: DagsterUi) -> None:
    """Return when the webserver answers; raises when it ended, or after START_SECONDS."""
    if not is_healthy(ui.process, ui.url, START_SECONDS, "/server_info"):
        raise RuntimeError(f"{ui.url} did not answer in {START_SECONDS:.0f} s; see {ui.log}")
