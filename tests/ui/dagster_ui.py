"""Dagster's webserver and daemon over a stack's state, as 'make ui' starts them."""

import os
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import httpx
import psutil

from lora_assets.cli.child import start_child
from lora_assets.cli.runs import open_instance
from lora_assets.environment import read_settings
from tests.conftest import free_port

WORKSPACE = Path(__file__).parents[2] / "workspace.yaml"
START_SECONDS = 300.0
STOP_SECONDS = 20.0


@contextmanager
def dagster_ui(environment: Mapping[str, str]) -> Iterator[str]:
    """The URL of the UI, which is there when `await_ui` says so, for as long as the block."""
    settings = read_settings(environment)
    open_instance(settings)
    port = free_port()
    command = [sys.executable, "-m", "dagster", "dev", "--workspace", str(WORKSPACE)]
    command += ["--host", "127.0.0.1", "--port", str(port)]
    variables = {**os.environ, **environment, "DAGSTER_HOME": str(settings.dagster_home)}
    with (settings.home / "dagster-dev.log").open("wb") as log:
        process = start_child(command, variables, log)
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        # Killed, it would leave its webserver, daemon and code server behind.
        own = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
        process.terminate()
        for left in psutil.wait_procs(own, STOP_SECONDS)[1]:
            left.kill()


def await_ui(url: str) -> None:
    """Return when the webserver answers; raises TimeoutError after START_SECONDS."""
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        try:
            if httpx.get(f"{url}/server_info", timeout=5).is_success:
                return
        except httpx.TransportError:
            time.sleep(0.2)
    raise TimeoutError(f"Dagster's webserver at {url} did not answer in {START_SECONDS:.0f} s")
