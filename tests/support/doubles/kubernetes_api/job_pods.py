"""A Job's pod: its container is a local process, with the pod's environment and volumes."""

import os
import signal
import subprocess
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from threading import Thread
from typing import Any

from tests.support.doubles.kubernetes_api.replies import pod_json


def now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


@dataclass
class Node:
    """What pods find where they run.

    A path in a container's environment that begins with `inside` is one of the container's own
    file system: it becomes the folder of the volume that is mounted there, or one that goes
    away with the pod. All other paths are this machine's.
    """

    folder: Path
    images: Collection[str]
    environment: Mapping[str, str]
    """What the images set."""
    claims: Mapping[str, Path] = field(default_factory=dict)
    secrets: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    inside: str = "/var/lib/"


@dataclass(eq=False)
class JobPod:
    """A pod with one container; `changed` is called whenever its state is another."""

    name: str
    namespace: str
    labels: Mapping[str, str]
    spec: Mapping[str, Any]
    node: Node
    changed: Callable[[], None]
    deleted: bool = False
    exit_code: int | None = None
    peak_memory: int = 0
    """Bytes that the process had at most, a moment before its end."""
    _started: str = field(default_factory=now)
    _finished: str = ""

    def __post_init__(self) -> None:
        """Start the container; a Job that lacks something is refused at once, not left pending."""
        (self._container,) = self.spec["containers"]
        assert self._container["image"] in self.node.images, f"no {self._container['image']}"
        self._folder = self.node.folder / self.name
        self._folder.mkdir(parents=True)
        self.log = self._folder / "log"
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                [*self._container.get("command", ()), *self._container.get("args", ())],
                env=self._environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        Thread(target=self._await_end, daemon=True).start()

    @property
    def running(self) -> bool:
        return self.exit_code is None

    @property
    def gone(self) -> bool:
        """Whether it was deleted, and has nothing left to end."""
        return self.deleted and not self.running

    def kill(self) -> None:
        """End the container without a word, as a node that is lost does."""
        self._signal(signal.SIGKILL)

    def delete(self) -> None:
        """Have the container end in its own way, or be killed when its grace is over."""
        self.deleted = True
        Thread(target=self._end_within_grace, daemon=True).start()

    def json(self) -> Mapping[str, object]:
        state: Mapping[str, Mapping[str, object]]
        if self.running:
            phase, state = "Running", {"running": {"startedAt": self._started}}
        else:
            phase, reason = ("Failed", "Error") if self.exit_code else ("Succeeded", "Completed")
            times = {"startedAt": self._started, "finishedAt": self._finished}
            state = {"terminated": {"exitCode": self.exit_code, "reason": reason, **times}}
        container = {"name": self._container["name"], "image": self._container["image"]}
        seen = {"imageID": container["image"], "ready": self.running, "restartCount": 0}
        statuses = [{**container, **seen, "state": state}]
        return pod_json(self, self.spec, {"phase": phase, "containerStatuses": statuses})

    def _environment(self) -> Mapping[str, str]:
        environment = dict(self.node.environment)
        for source in self._container.get("envFrom", ()):
            environment |= self.node.secrets[source["secretRef"]["name"]]
        for variable in self._container.get("env", ()):
            secret = variable.get("valueFrom", {}).get("secretKeyRef")
            if secret:
                value = self.node.secrets[secret["name"]][secret["key"]]
            else:
                value = self._on_this_machine(variable.get("value", ""))
            environment[variable["name"]] = value
        return environment

    def _on_this_machine(self, value: str) -> str:
        """The local folder of a path in the container; any other value as it is."""
        if not value.startswith(self.node.inside):
            return value
        volumes = {volume["name"]: volume for volume in self.spec.get("volumes", ())}
        for mount in self._container.get("volumeMounts", ()):
            path = mount["mountPath"]
            claim = volumes[mount["name"]].get("persistentVolumeClaim")
            if claim and (value == path or value.startswith(f"{path}/")):
                return f"{self.node.claims[claim['claimName']]}{value[len(path) :]}"
        return f"{self._folder}/root{value}"

    def _await_end(self) -> None:
        # The kernel's own count after the end (ru_maxrss) begins with this process's size.
        while self._process.poll() is None:
            self.peak_memory = max(self.peak_memory, _peak_memory(self._process.pid))
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(0.2)
        code = self._process.returncode
        self._finished = now()
        # As a shell and a container runtime count a signal.
        self.exit_code = code if code >= 0 else 128 - code
        self.changed()

    def _signal(self, number: signal.Signals) -> None:
        if self.running:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, number)

    def _end_within_grace(self) -> None:
        self._signal(signal.SIGTERM)
        try:
            self._process.wait(self.spec.get("terminationGracePeriodSeconds", 30))
        except subprocess.TimeoutExpired:
            self.kill()


def _peak_memory(pid: int) -> int:
    """Bytes of memory that a process had at most (VmHWM); 0 when it has ended."""
    with suppress(ProcessLookupError), open(f"/proc/{pid}/status") as status:
        for line in status:
            if line.startswith("VmHWM"):
                return int(line.split()[1]) * 1024
    return 0
