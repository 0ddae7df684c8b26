"""One embedded stack in a folder of its own: its server, and what runs leave in its registry."""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from lora_assets.embedded.child import is_healthy, start_child
from lora_assets.records.training import Adapter
from lora_assets.resources.registry import Registry
from lora_assets.serving.vllm_plugin.adapters_folder import digest_folder
from lora_assets.settings import EMBEDDED_BASE_NAME
from lora_assets.stack_resources import Resources
from tests.support.records import trained_adapter

START_SECONDS = 120


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def stack_environment(home: Path, port: int) -> Mapping[str, str]:
    return {
        "LORA_ASSETS_HOME": str(home),
        "VLLM_URL": f"http://127.0.0.1:{port}",
        "JUDGE_URL": f"http://127.0.0.1:{port}/judge",
    }


@contextmanager
def serving(environment: Mapping[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    """The embedded server as a process, from when it is healthy."""
    command = [sys.executable, "-m", "lora_assets.cli.main", "serve"]
    server = start_child(command, {**os.environ, **environment})
    try:
        assert is_healthy(server, environment["VLLM_URL"], START_SECONDS), "it did not start"
        yield server
    finally:
        server.terminate()
        server.wait(30)


def trained(resources: Resources, folder: Path, data_version: str) -> Adapter:
    """What the adapter asset leaves of a training run that ended with this folder."""
    with resources.tracking.run("training", "run", folder.name, {}) as run:
        run.folder(folder, "adapter")
    return trained_adapter(digest_folder(folder), data_version, EMBEDDED_BASE_NAME, run.run_id)


def with_key(registry: Registry) -> Registry:
    """The same registry, as who has the key for signatures sees it."""
    return type(registry)(**{**dict(registry), "verdict_key": "k" * 64})
