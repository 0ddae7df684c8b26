"""Processes beside the tests, each of which can be killed and restarted; those of Dagster."""

import json
import os
import pwd
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event
from typing import Any

import httpx
import yaml

import lora_assets.local
from lora_assets.embedded.child import _end_with_parent
from tests.support.stack import free_port

NAMESPACE = "dagster"
PROGRAMS = Path(sys.executable).parent
LOCATION = "lora_assets.definitions"
PATIENCE_S = 600
"""For one thing to happen, also on a machine that is busy with others."""

RUN_RESOURCES: Mapping[str, Mapping[str, str]] = {
    "requests": {"cpu": "250m", "memory": "512Mi"},
    "limits": {"cpu": "500m", "memory": "1Gi"},
}
"""Of a run's pod, as deploy/dagster/values.yaml gives them."""

LOADED = "{ repositoriesOrError { ... on RepositoryConnection { nodes { name } } } }"


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


@dataclass
class Part:
    """A process that is ready when `health` is answered, or without one when its port listens.

    One whose port is 0 is ready at once. `user` is who runs it, where we do not.
    """

    name: str
    port: int
    command: Sequence[str | Path]
    log: Path
    health: str | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    user: str | None = None
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Return when it is ready."""
        self.launch()
        self.await_ready()

    def launch(self) -> None:
        with self.log.open("ab") as output:
            self.process = subprocess.Popen(
                self.command,
                env={**os.environ, **self.environment},
                stdout=output,
                stderr=output,
                user=self.user,
                group=self.user and pwd.getpwnam(self.user).pw_gid,
                extra_groups=[] if self.user else None,
                # A group of its own, so that workers die with it.
                start_new_session=True,
                preexec_fn=_end_with_parent,
            )

    def await_ready(self) -> None:
        until(lambda: not self.runs or self._is_ready(), self.name)
        assert self.runs, f"{self.name} ended: {self.log.read_text()[-3000:]}"

    def _is_ready(self) -> bool:
        if self.health is None:
            return not self.port or is_listening(self.port)
        return is_answered(f"{self.url}{self.health}")

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    @property
    def runs(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def kill(self) -> bool:
        """End it without warning, as a lost node does; return whether it ran."""
        if not self.process or not self.runs:
            return False
        os.killpg(self.pid, signal.SIGKILL)
        self.process.wait()
        return True

    @contextmanager
    def running(self) -> Iterator[None]:
        """Run it within the block."""
        try:
            self.start()
            yield
        finally:
            self.kill()

    @contextmanager
    def killed(self) -> Iterator[None]:
        """Have it gone within the block, and back after it."""
        self.kill()
        try:
            yield
        finally:
            self.start()


@dataclass(frozen=True)
class Dagster:
    """Dagster's processes, and the address of its webserver."""

    url: str
    code: Part
    daemon: Part


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
    home = {"DAGSTER_HOME": str(dagster_home)}
    log = dagster_home / "services.log"
    code = (PROGRAMS / "dagster", "api", "grpc", *served)
    daemon = (PROGRAMS / "dagster-daemon", "run", "-w", workspace)
    at = ("-h", "127.0.0.1", "-p", str(web))
    webserver = (PROGRAMS / "dagster-webserver", "-w", workspace, *at)
    parts = (
        Part("the code location", grpc, code, log, environment={**home, **location}),
        Part("the daemon", 0, daemon, log, environment=home),
        Part("the webserver", web, webserver, log, "/server_info", home),
    )
    url = parts[2].url

    def loaded() -> object:
        reply = httpx.post(f"{url}/graphql", json={"query": LOADED}, timeout=60)
        return reply.json()["data"]["repositoriesOrError"].get("nodes")

    with parts[0].running(), parts[1].running(), parts[2].running():
        until(loaded, "Dagster's locations")
        yield Dagster(url, *parts[:2])
