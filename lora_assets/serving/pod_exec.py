"""The transport to the adapters folder of a replica that runs in a pod: `pods/exec`."""

import inspect
import json
import re
import tarfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, Any, cast

from kubernetes.stream import stream, ws_client
from pydantic import TypeAdapter, ValidationError
from websocket import WebSocketException

from lora_assets.bounded_calls import within
from lora_assets.errors import LoraAssetsError
from lora_assets.serving.cluster_api import api_errors, ask, core_api
from lora_assets.serving.replica_folder import Answer, ReplicaFolder
from lora_assets.serving.vllm_plugin import adapters_folder

# For one command: 2 GB take 400 s at the 5 MB/s of a busy API server, and half as long to digest.
EXEC_TIMEOUT_S = 900.0
_MOST_OUTPUT = 8 << 20
_CHUNK = 1 << 16  # Bytes in one message; the client and the servers on the way hold it whole.
_SAID = (ws_client.STDOUT_CHANNEL, ws_client.STDERR_CHANNEL, ws_client.ERROR_CHANNEL)
_ANSWER = TypeAdapter(Answer)
_DNS_NAME = re.compile(r"[a-z0-9]([a-z0-9.-]*[a-z0-9])?")


@dataclass(frozen=True)
class PodExec:
    """The transport to a folder that one pod sees; `container` None is the pod's only one.

    The changes are made there by `adapters_folder.py`, so the container needs python3 and this
    process needs the rights to get pods and to get and create pods/exec.
    """

    path: str
    namespace: str
    pod: str
    container: str | None

    def __post_init__(self) -> None:
        names = [self.namespace, self.pod, *([self.container] if self.container else [])]
        if not all(_DNS_NAME.fullmatch(name) for name in names) or self.path[:1] != "/":
            raise LoraAssetsError(
                f"{'/'.join(names)} with folder {self.path!r} is no pod with an absolute path",
                "Give namespace, pod and container as kubectl shows them.",
            )

    def __str__(self) -> str:
        return f"{self.path} in pod {self.namespace}/{self.pod}"

    def run(self, command: str, *arguments: str, adapter: Path | None = None) -> Answer:
        """Run the command in the pod."""
        where = f"pod {self.namespace}/{self.pod}"
        # Isolated (-I), so that nothing in the container's working folder is imported.
        script = ["python3", "-I", "-c", inspect.getsource(adapters_folder), self.path, command]
        options: dict[str, Any] = dict.fromkeys(("stdin", "stdout", "stderr", "binary"), True)
        options |= {"command": [*script, *arguments], "_preload_content": False}
        if self.container is not None:
            options["container"] = self.container
        api = core_api()
        with api_errors(f"run a command in {where}"):
            # The websocket's own connect names a missing pod less well, and has no timeout.
            ask(api.read_namespaced_pod, self.pod, self.namespace)
            connect = api.connect_get_namespaced_pod_exec
            socket = within(partial(stream, connect, self.pod, self.namespace, **options))
        try:
            running = _Command(socket, where, time.monotonic() + EXEC_TIMEOUT_S)
            if adapter is not None:
                running.send(adapter)
            return running.answer()
        finally:
            socket.close(timeout=1)


def pod_folder(path: str, namespace: str, pod: str, container: str | None) -> ReplicaFolder:
    """Return the folder that one pod sees."""
    return ReplicaFolder(PodExec(path, namespace, pod, container))


@dataclass(frozen=True)
class _Command:
    """A command that runs in a container, and the one websocket that it is reached by."""

    socket: Any  # A ws_client.WSClient, which has no types.
    where: str
    deadline: float  # In seconds of time.monotonic().

    def send(self, adapter: Path) -> None:
        """Send an adapter's files as a tar stream; `answer` says whether they were taken."""
        stdin = cast(IO[bytes], self)  # A stream is only written to.
        try:
            with tarfile.open(fileobj=stdin, mode="w|", bufsize=_CHUNK) as archive:
                for name in adapters_folder.FILES:
                    archive.add(adapter / name, arcname=name, recursive=False)
        except OSError as error:
            raise LoraAssetsError(
                f"Can't read adapter {adapter} ({error.strerror or error})",
                f"Take it from the registry again; nothing was changed in {self.where}.",
            ) from None
        with self._ending():
            # From v5 of the protocol on. Before, the command stops at the archive's end mark.
            self.socket.close_channel(ws_client.STDIN_CHANNEL)

    def write(self, data: bytes) -> int:
        """Send bytes to the command, no faster than it takes them; none once it has ended."""
        with self._ending():
            if not self.socket.peek_channel(ws_client.ERROR_CHANNEL) and self.socket.is_open():
                self.socket.sock.settimeout(self._left())
                self.socket.write_stdin(data)
        return len(data)

    def answer(self) -> Answer:
        """What the command printed last, once it has ended well."""
        with self._ending():
            self.socket.sock.settimeout(self._left())
            self._read_to_the_end()
        out, err, status = (self.socket.read_channel(channel) for channel in _SAID)
        if not status:
            raise LoraAssetsError(
                f"The connection to {self.where} broke off while a command ran",
                "Check that the pod still runs, then start this step again.",
            )
        ended = json.loads(status)
        if ended["status"] != "Success":
            cause = err.decode(errors="replace").strip() or str(ended.get("message"))
            raise LoraAssetsError(
                f"A command in {self.where} failed ({cause.splitlines()[-1][:300]})",
                "Check that its image has python3 and that the adapters folder is mounted there.",
            )
        try:
            return _ANSWER.validate_json(out.strip().rpartition(b"\n")[2])
        except ValidationError:
            raise LoraAssetsError(
                f"A command in {self.where} ended without an answer", "Start this step again."
            ) from None

    def _left(self) -> float:
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise LoraAssetsError(
                f"A command in {self.where} did not end within {EXEC_TIMEOUT_S:g} s",
                "Check the pod and its volume, then start this step again.",
            )
        return left

    @contextmanager
    def _ending(self) -> Iterator[None]:
        """Read what has arrived where the connection is lost; most often that says why.

        A server that has answered may reset the connection while it is still written to.
        """
        try:
            yield
        except (WebSocketException, OSError):
            self._left()
            with suppress(WebSocketException, OSError):
                self._read_to_the_end()
            self.socket.close()

    def _read_to_the_end(self) -> None:
        while self.socket.is_open():
            self.socket.update(timeout=self._left())
            said = sum(len(self.socket.peek_channel(channel)) for channel in _SAID)
            if said > _MOST_OUTPUT:
                self.socket.close()
                raise LoraAssetsError(
                    f"A command in {self.where} printed more than {_MOST_OUTPUT >> 20} MiB",
                    "Check what python3 is in that image: a command of ours prints one line.",
                )
