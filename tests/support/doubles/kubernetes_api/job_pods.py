"""A Job's pod: its container is a local process, with the pod's environment and volumes."""

import os
import signal
import subprocess
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from threading import Event, Thread
from typing import Any


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


class JobPod:
    """A pod, from its template; `changed` is called whenever its state is another."""

    containers: Sequence[str]

    def __init__(
        self,
        name: str,
        namespace: str,
        template: Mapping[str, Any],
        labels: Mapping[str, str],
        node: Node,
        changed: Callable[[], None],
    ) -> None:
        self.name, self.namespace, self.labels = name, namespace, labels
        self.spec: Mapping[str, Any] = template["spec"]
        self.folder = node.folder / name
        self.log = self.folder / "log"
        self.deleted = False
        self.exit_code: int | None = None
        self.peak_memory = 0
        """Bytes that the process had at most, a moment before its end."""
        self._node, self._changed = node, changed
        self._process: subprocess.Popen[bytes] | None = None
        self._started, self._finished = now(), ""
        self._has_started, self._ended = Event(), Event()
        (self._container,) = self.spec["containers"]
        self.containers = [self._container["name"]]
        self._lacks = next(self._missing(), None)

    @property
    def gone(self) -> bool:
        """Whether it was deleted, and has nothing left to end."""
        return self.deleted and not self.running

    @property
    def running(self) -> bool:
        """Whether there is a process, or will be in a moment."""
        return self._lacks is None and self.exit_code is None

    def start(self) -> None:
        """Start the container in a moment, unless something that it needs is not there."""
        if self._lacks is None:
            Thread(target=self._run, daemon=True).start()

    def kill(self) -> None:
        """End the container without a word, as a node that is lost does."""
        self._signal(signal.SIGKILL)

    def delete(self) -> None:
        """Have the container end in its own way, or be killed when its grace is over."""
        self.deleted = True
        grace = self.spec.get("terminationGracePeriodSeconds", 30)
        Thread(target=self._end_within, args=(grace,), daemon=True).start()

    def json(self) -> Mapping[str, object]:
        """The object as the API gives it."""
        deleted = {"deletionTimestamp": self._started} if self.deleted else {}
        return {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {
                "name": self.name,
                "namespace": self.namespace,
                "labels": dict(self.labels),
                **deleted,
            },
            "spec": self.spec,
            "status": {"phase": self._phase(), "containerStatuses": [self._status()]},
        }

    def _phase(self) -> str:
        if self._process is None:
            return "Pending"
        if self.exit_code is None:
            return "Running"
        return "Failed" if self.exit_code else "Succeeded"

    def _status(self) -> Mapping[str, object]:
        if self._process is None:
            reason, message = self._lacks or ("ContainerCreating", "")
            state: Mapping[str, object] = {"waiting": {"reason": reason, "message": message}}
        elif self.exit_code is None:
            state = {"running": {"startedAt": self._started}}
        else:
            ended = {
                "exitCode": self.exit_code,
                "reason": "Error" if self.exit_code else "Completed",
                "startedAt": self._started,
                "finishedAt": self._finished,
            }
            state = {"terminated": ended}
        image = self._container["image"]
        return {
            "name": self._container["name"],
            "image": image,
            "imageID": image,
            "ready": self.running,
            "restartCount": 0,
            "state": state,
        }

    def _missing(self) -> Iterator[tuple[str, str]]:
        if self._container["image"] not in self._node.images:
            yield "ErrImagePull", f"no image {self._container['image']}"
        for volume in self.spec.get("volumes", ()):
            claim = volume.get("persistentVolumeClaim", {}).get("claimName")
            if claim is not None and claim not in self._node.claims:
                yield "ContainerCreating", f'persistentvolumeclaim "{claim}" not found'
        for source in self._container.get("env", ()):
            secret = source.get("valueFrom", {}).get("secretKeyRef", {})
            if secret and secret["key"] not in self._node.secrets.get(secret["name"], {}):
                yield "CreateContainerConfigError", f'secret "{secret["name"]}" not found'

    def _environment(self) -> Mapping[str, str]:
        environment = dict(self._node.environment)
        for source in self._container.get("envFrom", ()):
            environment |= self._node.secrets[source["secretRef"]["name"]]
        for variable in self._container.get("env", ()):
            secret = variable.get("valueFrom", {}).get("secretKeyRef")
            if secret:
                value = self._node.secrets[secret["name"]][secret["key"]]
            else:
                value = self._on_this_machine(variable.get("value", ""))
            environment[variable["name"]] = value
        return environment

    def _on_this_machine(self, value: str) -> str:
        """The local folder of a path in the container; any other value as it is."""
        if not value.startswith(self._node.inside):
            return value
        volumes = {volume["name"]: volume for volume in self.spec.get("volumes", ())}
        for mount in self._container.get("volumeMounts", ()):
            path = mount["mountPath"]
            claim = volumes[mount["name"]].get("persistentVolumeClaim")
            if claim and (value == path or value.startswith(f"{path}/")):
                return f"{self._node.claims[claim['claimName']]}{value[len(path) :]}"
        return f"{self.folder}/root{value}"

    def _run(self) -> None:
        self.folder.mkdir(parents=True)
        command = [*self._container.get("command", ()), *self._container.get("args", ())]
        try:
            process = self._start(command)
        except OSError as error:
            self._lacks = ("RunContainerError", str(error))
            self._changed()
            return
        self._process = process
        self._has_started.set()
        # The kernel's own count after the end (ru_maxrss) begins with this process's size.
        while process.poll() is None:
            self.peak_memory = max(self.peak_memory, _peak_memory(process.pid))
            with suppress(subprocess.TimeoutExpired):
                process.wait(0.2)
        code = process.returncode
        # As a shell and a container runtime count a signal.
        self.exit_code = code if code >= 0 else 128 - code
        self._finished = now()
        self._ended.set()
        self._changed()

    def _start(self, command: Sequence[str]) -> subprocess.Popen[bytes]:
        with self.log.open("wb") as log:
            return subprocess.Popen(
                command,
                env=self._environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def _signal(self, number: signal.Signals) -> None:
        if self.running:
            assert self._has_started.wait(60)
            assert self._process
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, number)

    def _end_within(self, grace: float) -> None:
        self._signal(signal.SIGTERM)
        if not self._ended.wait(grace):
            self.kill()


def _peak_memory(pid: int) -> int:
    """Bytes of memory that a process had at most (VmHWM); 0 when it has ended."""
    with suppress(ProcessLookupError), open(f"/proc/{pid}/status") as status:
        for line in status:
            if line.startswith("VmHWM"):
                return int(line.split()[1]) * 1024
    return 0
