"""Dagster's webserver and daemon over a stack's state, as 'make ui' starts them."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil

from lora_assets.cli.child import start_child
from lora_assets.cli.runs import open_instance
from lora_assets.environment import read_settings
from tests.conftest import free_port

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
    open_instance(settings)
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
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and ui.process.poll() is None:
        with suppress(httpx.TransportError):
            if httpx.get(f"{ui.url}/server_info", timeout=5).is_success:
                return
        with suppress(subprocess.TimeoutExpired):
            ui.process.wait(0.2)
    raise RuntimeError(f"{ui.url} did not answer in {START_SECONDS:.0f} s; see {ui.log}")
