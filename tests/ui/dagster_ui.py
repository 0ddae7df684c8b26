"""Dagster's webserver and daemon over a stack's state, as 'make ui' starts them."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import httpx

from lora_assets.cli.child import start_child
from lora_assets.cli.runs import open_instance
from lora_assets.environment import read_settings
from tests.conftest import free_port

WORKSPACE = Path(__file__).parents[2] / "workspace.yaml"
START_SECONDS = 300.0


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
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


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
