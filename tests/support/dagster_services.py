"""Dagster's own processes: code location, daemon and webserver."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import Any

import httpx
import yaml

import lora_assets.local
from tests.support.stack import free_port

NAMESPACE = "dagster"
LOCATION = "lora_assets.definitions"
PATIENCE_S = 600
"""For one thing to happen, also on a machine that is busy with others."""

RUN_RESOURCES: Mapping[str, Mapping[str, str]] = {
    "requests": {"cpu": "250m", "memory": "512Mi"},
    "limits": {"cpu": "500m", "memory": "1Gi"},
}
"""Of a run's pod, as deploy/dagster/values.yaml gives them."""

LOADED = "{ repositoriesOrError { ... on RepositoryConnection { nodes { name } } } }"


@dataclass(frozen=True)
class Dagster:
    """Dagster's processes, and the address of its webserver."""

    url: str
    code: subprocess.Popen[bytes]
    daemon: subprocess.Popen[bytes]


def until(
    condition: Callable[[], Any], what: str = "a condition", timeout_s: float = PATIENCE_S
) -> Any:
    """Return what `condition` returns, once that is true."""
    never = Event()
    for _ in range(int(timeout_s / 0.2)):
        if outcome := condition():
            return outcome
        never.wait(0.2)
    raise AssertionError(f"waited for {what} in vain")


@contextmanager
def meanwhile(do: Callable[[], object], every_s: float) -> Iterator[None]:
    """Do something again and again beside the block, in a thread that ends with it."""
    over = Event()

    def again() -> None:
        while not over.wait(every_s):
            do()

    with ThreadPoolExecutor(1) as pool:
        doing = pool.submit(again)
        try:
            yield
        finally:
            over.set()
    doing.result()


def is_listening(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def is_answered(url: str) -> bool:
    try:
        return httpx.get(url).is_success
    except httpx.TransportError:
        return False


def instance_settings(
    kubeconfig: Path, dagster_home: Path, run_resources: Mapping[str, Any]
) -> Mapping[str, Any]:
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
            "resources": run_resources,
        },
    }
    return settings


@contextmanager
def serving_dagster(
    dagster_home: Path,
    location: Mapping[str, str],
    image: str | None = None,
    other_locations: Sequence[Path] = (),
) -> Iterator[Dagster]:
    """Start Dagster; yield it when its locations are loaded.

    `location` is the environment of the code location; with an image, that of its runs, too.
    """
    grpc, web = free_port(), free_port()
    workspace = dagster_home / "workspace.yaml"
    server = {"grpc_server": {"host": "127.0.0.1", "port": grpc, "location_name": LOCATION}}
    others = [{"python_file": str(path)} for path in other_locations]
    workspace.write_text(json.dumps({"load_from": [server, *others]}))
    served = ["-m", "lora_assets.definitions", "-h", "127.0.0.1", "-p", str(grpc)]
    if image is not None:
        # As the chart does it: the location's environment goes with its runs.
        context = {"k8s": {"env_vars": [f"{name}={value}" for name, value in location.items()]}}
        served += ["--container-context", json.dumps(context)]
        location = {**location, "DAGSTER_CURRENT_IMAGE": image}
    processes: list[subprocess.Popen[bytes]] = []

    def start(program: str, *arguments: str, **more: str) -> None:
        command = [str(Path(sys.executable).parent / program), *arguments]
        environment = {**os.environ, "DAGSTER_HOME": str(dagster_home), **more}
        with (dagster_home / f"{program}.log").open("ab") as log:
            processes.append(subprocess.Popen(command, env=environment, stdout=log, stderr=log))

    url = f"http://127.0.0.1:{web}"

    def loaded() -> bool:
        assert all(process.poll() is None for process in processes), "a part of Dagster ended"
        try:
            reply = httpx.post(f"{url}/graphql", json={"query": LOADED}, timeout=60)
        except httpx.ConnectError:
            return False
        return bool(reply.json()["data"]["repositoriesOrError"].get("nodes"))

    try:
        start("dagster", "api", "grpc", *served, **location)
        until(lambda: is_listening(grpc), "the code location")
        start("dagster-daemon", "run", "-w", str(workspace))
        start("dagster-webserver", "-w", str(workspace), "-h", "127.0.0.1", "-p", str(web))
        until(loaded, "Dagster's webserver")
        yield Dagster(url, code=processes[0], daemon=processes[1])
    finally:
        for process in processes:
            # Asked to end, a code server goes on for as long as someone watches it; and in a
            # background job, where SIGINT is ignored, it ignores SIGTERM.
            process.kill() if process is processes[0] else process.terminate()
        for process in processes:
            process.wait(PATIENCE_S)
