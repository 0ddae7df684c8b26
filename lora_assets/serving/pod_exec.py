"""The adapters folder of a replica that runs in a pod, reached through `pods/exec`."""

import inspect
import json
import os
import re
import tarfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

from kubernetes.client import ApiClient, ApiException, Configuration, CoreV1Api
from kubernetes.config import ConfigException, load_incluster_config, load_kube_config
from kubernetes.stream import stream, ws_client
from urllib3.exceptions import HTTPError
from websocket import WebSocketBadStatusException, WebSocketException
from yaml import YAMLError

from lora_assets.errors import LoraAssetsError
from lora_assets.serving import adapter_files
from lora_assets.serving.replica_folder import refusal, unchanged
from lora_assets.serving.vllm_plugin import adapters_folder

# For one plain request: the API server answers from memory.
REQUEST_TIMEOUT_S = 10.0
# For one command: 2 GB take 400 s at the 5 MB/s of a busy API server, and half as long to digest.
EXEC_TIMEOUT_S = 900.0
_CHUNK = 1 << 16  # Bytes in one message; the client and the servers on the way hold it whole.
_REMEDIES = {
    403: "Give this process's service account or user that right in the namespace.",
    404: "Look for the replicas again: pods are replaced under other names.",
}
_DNS_NAME = re.compile(r"[a-z0-9]([a-z0-9.-]*[a-z0-9])?")


@dataclass(frozen=True)
class PodFolder:
    """A ReplicaFolder that only one pod sees; `container` None is the pod's default one.

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

    def place(self, source: Path, digest: str) -> None:
        """Have the adapter in `source` there as `<digest>/`, its digest taken where it lies."""
        adapter_files.verify(source, digest)
        if not self.intact(digest):
            self._run("receive", digest, adapter=source)

    def verify(self, digest: str) -> None:
        """Refuse an adapter that is missing there, or whose bytes are other ones."""
        self._run("require", digest)

    def intact(self, digest: str) -> bool:
        """Whether the adapter is there with the bytes that its digest says."""
        return self._run("intact", digest) is True

    def set_name(self, name: str, digest: str) -> None:
        """Let an adapter's own serving name stand for its digest folder."""
        self._run("name", name, digest)

    def set_slot(self, slot: str, name: str) -> None:
        """Let a slot stand for an adapter's own name, from the next request on."""
        self._run("slot", slot, name)

    def clear_slot(self, slot: str) -> None:
        """Let a slot stand for nothing."""
        self._run("clear_slot", slot)

    def slots(self) -> Mapping[str, str]:
        """The adapter's own name that each slot stands for."""
        return cast(Mapping[str, str], self._run("slots"))

    def contents(self) -> Mapping[str, Mapping[str, str]]:
        """`digests`: folder to the digest of what it holds; `names`; `slots`."""
        return cast(Mapping[str, Mapping[str, str]], self._run("contents"))

    def prune(self, keep: Sequence[str]) -> None:
        """Remove adapters but for the digests in `keep` and those that a slot stands for."""
        self._run("prune", *keep)

    def _run(self, command: str, *arguments: str, adapter: Path | None = None) -> object:
        where = f"pod {self.namespace}/{self.pod}"
        # Isolated (-I), so that nothing in the container's working folder is imported.
        script = ["python3", "-I", "-c", inspect.getsource(adapters_folder), self.path, command]
        options: dict[str, Any] = dict.fromkeys(("stdin", "stdout", "stderr", "binary"), True)
        options |= {"command": [*script, *arguments], "_preload_content": False}
        if self.container is not None:
            options["container"] = self.container
        api = core_api()
        with api_errors(f"run a command in {where}"):
            # The websocket's own connect has no timeout, and names a missing pod less well.
            api.read_namespaced_pod(self.pod, self.namespace, _request_timeout=REQUEST_TIMEOUT_S)
            socket = stream(
                api.connect_get_namespaced_pod_exec, self.pod, self.namespace, **options
            )
        try:
            running = _Command(socket, where, time.monotonic() + EXEC_TIMEOUT_S)
            if adapter is not None:
                running.send(adapter)
            answer = running.answer()
        finally:
            socket.close(timeout=1)
        if isinstance(answer, dict) and "refused" in answer:
            raise refusal(f"{where}, {self.path}", str(answer["refused"]))
        if isinstance(answer, dict) and "failed" in answer:
            raise unchanged(f"{self.path} in {where}", str(answer["failed"]))
        return answer


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

    def answer(self) -> object:
        """What the command printed last, once it has ended well."""
        with self._ending():
            self.socket.sock.settimeout(self._left())
            while self.socket.is_open():
                self.socket.update(timeout=self._left())
        channels = (ws_client.STDOUT_CHANNEL, ws_client.STDERR_CHANNEL, ws_client.ERROR_CHANNEL)
        out, err, status = (self.socket.read_channel(channel) for channel in channels)
        if not status:
            raise LoraAssetsError(
                f"The connection to {self.where} broke off while a command ran",
                "See that the pod still runs, then start this step again.",
            )
        ended = json.loads(status)
        if ended["status"] != "Success":
            cause = err.decode(errors="replace").strip() or str(ended.get("message"))
            raise LoraAssetsError(
                f"A command in {self.where} failed ({cause.splitlines()[-1][:300]})",
                "See that its image has python3 and that the adapters folder is mounted there.",
            )
        try:
            return json.loads(out.decode().strip().rpartition("\n")[2])
        except ValueError:
            raise LoraAssetsError(
                f"A command in {self.where} ended without an answer", "Start this step again."
            ) from None

    def _left(self) -> float:
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise LoraAssetsError(
                f"A command in {self.where} did not end within {EXEC_TIMEOUT_S:g} s",
                "See that the pod answers and that its volume is well, then start this step again.",
            )
        return left

    @contextmanager
    def _ending(self) -> Iterator[None]:
        """A lost connection leaves what had arrived to be read; most often that says why."""
        try:
            yield
        except (WebSocketException, OSError):
            self._left()
            self.socket.close()


def core_api() -> CoreV1Api:
    """A client by KUBECONFIG, this pod's account or ~/.kube/config; LoraAssetsError without."""
    configuration = Configuration()
    configuration.retries = False  # Each would print a warning; a step's own retry does better.
    kubeconfig = os.environ.get("KUBECONFIG") or None
    try:
        if kubeconfig is None and "KUBERNETES_SERVICE_HOST" in os.environ:
            load_incluster_config(configuration)
        else:
            load_kube_config(kubeconfig, client_configuration=configuration, persist_config=False)
    except (ConfigException, OSError, YAMLError) as error:
        raise LoraAssetsError(
            f"There is no way to a Kubernetes cluster ({_first_line(str(error))})",
            "Set KUBECONFIG, or run in a pod with a service account.",
        ) from None
    return CoreV1Api(ApiClient(configuration))


@contextmanager
def api_errors(doing: str) -> Iterator[None]:
    """Say in one line, as LoraAssetsError, why the Kubernetes API did not do it."""
    try:
        yield
    except HTTPError as error:
        raise LoraAssetsError(
            f"Can't {doing}: the Kubernetes API does not answer ({_first_line(str(error))})",
            "See that the cluster is up and that the kubeconfig names it.",
        ) from None
    except (ApiException, AttributeError) as error:
        # Releases before 37 stumble over the body that a refused websocket's error has not.
        refused = error if isinstance(error, ApiException) else error.__context__
        if not isinstance(refused, ApiException):
            raise
        code, cause = _status(refused)
        remedy = _REMEDIES.get(code, "See that the cluster and the pod are well, then try again.")
        raise LoraAssetsError(f"Can't {doing}: {cause}", remedy) from None


def _status(error: ApiException) -> tuple[int, str]:
    """The HTTP status (0 without one) and what the API server says, without any header."""
    code, body = int(error.status or 0), error.body or ""
    handshake = error.__context__
    if isinstance(handshake, WebSocketBadStatusException):
        code = handshake.status_code
        body = (handshake.resp_body or b"").decode(errors="replace")
    message = re.search(r'"message":\s*("(?:[^"\\]|\\.)*")', body)
    if message:
        return code, _first_line(json.loads(message[1]))
    return code, f"it answered {code}" if code else _first_line(str(error.reason))


def _first_line(text: str) -> str:
    return text.strip().partition("\n")[0][:300]
