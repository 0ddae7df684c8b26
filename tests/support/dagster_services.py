"""Dagster's own processes, wired as its Helm chart wires them."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from threading import Event
from typing import Any

import httpx
import yaml

import lora_assets.local
from tests.support.stack import free_port

NAMESPACE = "dagster"
LOCATION = "lora-assets"
PATIENCE_S = 600
"""For one thing to happen, also on a machine that is busy with others."""

LOADED = "{ repositoriesOrError { ... on RepositoryConnection { nodes { name } } } }"


def until(condition: Callable[[], Any], what: str, timeout_s: float) -> Any:
    """What `condition` gives as soon as that is something; asked for again and again."""
    never = Event()
    for _ in range(int(timeout_s / 0.2)):
        found = condition()
        if found:
            return found
        never.wait(0.2)
    raise AssertionError(f"waited for {what} in vain")


def instance_settings(kubeconfig: Path, dagster_home: Path) -> Mapping[str, Any]:
    """The project's own settings, with the launcher and with less time between looks."""
    own = Path(lora_assets.local.__path__[0]) / "dagster.yaml"
    settings: dict[str, Any] = yaml.safe_load(own.read_text())
    settings["run_monitoring"] |= {"poll_interval_seconds": 3, "max_resume_run_attempts": 3}
    settings["run_launcher"] = {
        "module": "dagster_k8s",
        "class": "K8sRunLauncher",
        "config": {
            "load_incluster_config": False,
            "kubeconfig_file": str(kubeconfig),
            "job_namespace": NAMESPACE,
            "service_account_name": "dagster",
            "instance_config_map": "dagster-instance",
            "dagster_home": str(dagster_home),
        },
    }
    return settings


@contextmanager
def serving_dagster(dagster_home: Path, location: Mapping[str, str], image: str) -> Iterator[str]:
    """Code location (of that image), daemon and webserver, whose URL is given when it answers."""
    grpc, web = free_port(), free_port()
    workspace = dagster_home / "workspace.yaml"
    servers = [{"grpc_server": {"host": "127.0.0.1", "port": grpc, "location_name": LOCATION}}]
    workspace.write_text(json.dumps({"load_from": servers}))
    environment = {**os.environ, "DAGSTER_HOME": str(dagster_home)}
    # As the chart does it: the location's environment goes with its runs.
    context = {"k8s": {"env_vars": [f"{name}={value}" for name, value in location.items()]}}
    served = ("-m", "lora_assets.definitions", "-h", "127.0.0.1", "-p", str(grpc))
    bin_folder = Path(sys.executable).parent
    processes: list[subprocess.Popen[bytes]] = []

    def start(program: str, *arguments: str, **more: str) -> None:
        command = [str(bin_folder / program), *arguments]
        processes.append(subprocess.Popen(command, env={**environment, **more}))

    def listens() -> bool:
        assert all(process.poll() is None for process in processes), "a part of Dagster ended"
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", grpc)) == 0

    url = f"http://127.0.0.1:{web}"

    def loaded() -> bool:
        assert all(process.poll() is None for process in processes), "a part of Dagster ended"
        try:
            reply = httpx.post(f"{url}/graphql", json={"query": LOADED}, timeout=60)
        except httpx.ConnectError:
            return False
        return bool(reply.json()["data"]["repositoriesOrError"].get("nodes"))

    try:
        container_context = ("--container-context", json.dumps(context))
        of_location = {**location, "DAGSTER_CURRENT_IMAGE": image}
        start("dagster", "api", "grpc", *served, *container_context, **of_location)
        until(listens, "the code location", PATIENCE_S)
        start("dagster-daemon", "run", "-w", str(workspace))
        start("dagster-webserver", "-w", str(workspace), "-h", "127.0.0.1", "-p", str(web))
        until(loaded, "Dagster's webserver", PATIENCE_S)
        yield url
    finally:
        for process in processes:
            # Where SIGINT is ignored, as in a background job, the code server ignores SIGTERM.
            process.kill() if process is processes[0] else process.terminate()
        for process in processes:
            process.wait(PATIENCE_S)
