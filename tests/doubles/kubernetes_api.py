"""A double of the Kubernetes API server: real HTTP and real websockets, no cluster behind them.

Its pods are local folders. A command that is executed in one is a local process, to which every
absolute path is the one below the pod's folder.
"""

import asyncio
import json
import re
import sys
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from threading import Condition, Thread
from typing import Any

from aiohttp import WSMsgType, web

_STDIN, _STDOUT, _STDERR, _ERROR, _CLOSE = 0, 1, 2, 3, 255
_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass
class Pod:
    """A pod; `folder` stands for the root of its file system."""

    name: str
    folder: Path
    labels: Mapping[str, str] = field(default_factory=lambda: {"app": "vllm"})
    namespace: str = "models"
    ip: str | None = "10.0.0.1"
    ready: bool | None = True
    deleted: bool = False
    phase: str = "Running"
    containers: Sequence[str] = ("vllm",)
    programs: Sequence[str] = ("python3",)


@dataclass
class Service:
    """A Service; each of its slices holds at most `slice_size` of the pods that it selects."""

    name: str
    selector: Mapping[str, str]
    ports: Mapping[str, int] = field(default_factory=lambda: {"http": 8000})
    namespace: str = "models"
    slice_size: int = 100
    targets: bool = True


@dataclass
class Deployment:
    """A Deployment; `selector` as its spec has it."""

    name: str
    selector: Mapping[str, Any]
    namespace: str = "models"


@dataclass
class Faults:
    """What goes wrong with commands from now on; offsets in bytes of standard input.

    `hang` is an argument: commands that have it neither read nor end.
    """

    forbidden: bool = False
    hang: str | None = None
    break_after: int | None = None
    flip_at: int | None = None


@dataclass
class KubernetesApi:
    """The double; what it holds may be changed while it serves."""

    pods: list[Pod] = field(default_factory=list)
    services: list[Service] = field(default_factory=list)
    deployments: list[Deployment] = field(default_factory=list)
    faults: Faults = field(default_factory=Faults)
    page_size: int = 500
    protocols: Sequence[str] = ("v5.channel.k8s.io", "v4.channel.k8s.io")
    requests: list[str] = field(default_factory=list)
    commands: list[Sequence[str]] = field(default_factory=list)
    stdin_bytes: int = 0
    _stopping: asyncio.Event = field(default_factory=asyncio.Event)
    _running: int = 0
    _changed: Condition = field(default_factory=Condition)

    @contextmanager
    def serving(self, folder: Path) -> Iterator[Path]:
        """Serve on a free port; yields a kubeconfig in `folder`, which outlives the server."""
        loop = asyncio.new_event_loop()
        thread = Thread(target=loop.run_forever, daemon=True)
        thread.start()
        runner, port = asyncio.run_coroutine_threadsafe(self._start(), loop).result(30)
        try:
            yield _kubeconfig(folder, port)
        finally:
            loop.call_soon_threadsafe(self._stopping.set)
            asyncio.run_coroutine_threadsafe(runner.cleanup(), loop).result(30)
            loop.call_soon_threadsafe(loop.stop)
            thread.join(30)
            loop.close()

    def wait_for_commands(self, timeout_s: float = 30) -> None:
        """Return when no command runs any more."""
        with self._changed:
            assert self._changed.wait_for(lambda: self._running == 0, timeout_s), "still running"

    def routes(self) -> list[web.RouteDef]:
        """What is served; more kinds of object are more routes."""
        pods = "/api/v1/namespaces/{namespace}/pods"
        slices = "/apis/discovery.k8s.io/v1/namespaces/{namespace}/endpointslices"
        return [
            web.get(pods, self._list_pods),
            web.get(pods + "/{name}", self._get_pod),
            web.get(pods + "/{name}/exec", self._exec),
            web.get(slices, self._list_slices),
            web.get(
                "/apis/apps/v1/namespaces/{namespace}/deployments/{name}", self._get_deployment
            ),
        ]

    async def _start(self) -> tuple[web.AppRunner, int]:
        app = web.Application(middlewares=[self._recorded])
        app.add_routes(self.routes())
        # As long a request line as a real API server reads: a command travels in it.
        runner = web.AppRunner(app, max_line_size=1 << 20, shutdown_timeout=1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        return runner, int(runner.addresses[0][1])

    @web.middleware
    async def _recorded(self, request: web.Request, handler: _Handler) -> web.StreamResponse:
        self.requests.append(f"{request.method} {request.path}")
        return await handler(request)

    async def _list_pods(self, request: web.Request) -> web.Response:
        found = [_pod_json(pod) for pod in self._pods(request) if _selected(request, pod.labels)]
        return self._page(request, "v1", "PodList", found)

    async def _get_pod(self, request: web.Request) -> web.Response:
        pod = self._pod(request)
        return web.json_response(_pod_json(pod)) if pod else _no_pod(request)

    async def _get_deployment(self, request: web.Request) -> web.Response:
        place = (request.match_info["namespace"], request.match_info["name"])
        for deployment in self.deployments:
            if (deployment.namespace, deployment.name) == place:
                spec = {"selector": deployment.selector, "template": {}}
                return web.json_response({"metadata": {"name": deployment.name}, "spec": spec})
        return _failure(404, "NotFound", f'deployments.apps "{place[1]}" not found')

    async def _list_slices(self, request: web.Request) -> web.Response:
        found = [
            part
            for service in self.services
            if service.namespace == request.match_info["namespace"]
            for part in _slices_json(service, self._pods(request))
            if _selected(request, part["metadata"]["labels"])
        ]
        return self._page(request, "discovery.k8s.io/v1", "EndpointSliceList", found)

    def _page(
        self, request: web.Request, version: str, kind: str, items: Sequence[object]
    ) -> web.Response:
        start = int(request.query.get("continue", 0))
        end = start + min(int(request.query.get("limit", self.page_size)), self.page_size)
        more = {"continue": str(end)} if end < len(items) else {}
        return web.json_response(
            {"apiVersion": version, "kind": kind, "metadata": more, "items": items[start:end]}
        )

    def _pods(self, request: web.Request) -> list[Pod]:
        return [p for p in self.pods if p.namespace == request.match_info["namespace"]]

    def _pod(self, request: web.Request) -> Pod | None:
        return next((p for p in self._pods(request) if p.name == request.match_info["name"]), None)

    async def _exec(self, request: web.Request) -> web.StreamResponse:
        pod = self._pod(request)
        if pod is None:
            return _no_pod(request)
        name = request.match_info["name"]
        if self.faults.forbidden:
            return _failure(
                403, "Forbidden", f'pods "{name}" is forbidden: cannot create pods/exec'
            )
        container = request.query.get("container", pod.containers[0])
        if container not in pod.containers:
            message = f"container {container} is not valid for pod {name}"
            return _failure(400, "BadRequest", message)
        socket = web.WebSocketResponse(protocols=self.protocols)
        await socket.prepare(request)
        self._count(+1)
        try:
            await self._command(request, socket, pod)
        finally:
            self._count(-1)
        return socket

    async def _command(self, request: web.Request, socket: web.WebSocketResponse, pod: Pod) -> None:
        command = request.query.getall("command")
        self.commands.append(command)
        if self.faults.hang in command:
            await self._stopping.wait()
            return
        if command[0] not in pod.programs:
            message = f'exec: "{command[0]}": executable file not found in $PATH'
            await _end(socket, {"status": "Failure", "message": message, "code": 500})
            return
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *(str(pod.folder / a[1:]) if a.startswith("/") else a for a in command[1:]),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        assert process.stdin
        assert process.stdout
        assert process.stderr
        taking = asyncio.create_task(self._take(request, socket, process.stdin))
        await asyncio.gather(
            _pass_on(process.stdout, socket, _STDOUT), _pass_on(process.stderr, socket, _STDERR)
        )
        code = await process.wait()
        message = f"command terminated with non-zero exit code: exit code {code}"
        failed = {"status": "Failure", "message": message, "reason": "NonZeroExitCode"}
        await _end(socket, failed if code else {"status": "Success"})
        await taking

    async def _take(
        self, request: web.Request, socket: web.WebSocketResponse, stdin: asyncio.StreamWriter
    ) -> None:
        """Pass on what comes for standard input, and close it with the connection."""
        taken = 0
        async for message in socket:
            assert message.type is WSMsgType.BINARY
            if message.data == bytes([_CLOSE, _STDIN]):
                stdin.close()
            elif message.data[0] == _STDIN:
                block = bytearray(message.data[1:])
                flip, stop = self.faults.flip_at, self.faults.break_after
                if flip is not None and 0 <= flip - taken < len(block):
                    block[flip - taken] ^= 1
                if stop is not None:
                    del block[max(stop - taken, 0) :]
                taken += len(block)
                self.stdin_bytes += len(block)
                # What a command does not read any more is dropped, as in a cluster.
                if not stdin.is_closing():
                    stdin.write(block)
                    with suppress(ConnectionError):
                        await stdin.drain()
                if taken == stop and request.transport:
                    request.transport.abort()
                    break
        stdin.close()

    def _count(self, change: int) -> None:
        with self._changed:
            self._running += change
            self._changed.notify_all()


async def _pass_on(
    stream: asyncio.StreamReader, socket: web.WebSocketResponse, channel: int
) -> None:
    while block := await stream.read(1 << 15):
        with suppress(ConnectionError):  # The client is gone; the command runs on to its end.
            await socket.send_bytes(bytes([channel]) + block)


async def _end(socket: web.WebSocketResponse, status: Mapping[str, object]) -> None:
    with suppress(ConnectionError):
        await socket.send_bytes(bytes([_ERROR]) + json.dumps(status).encode())
        await socket.close()


def _pod_json(pod: Pod) -> Mapping[str, object]:
    ready = {None: "Unknown", True: "True", False: "False"}[pod.ready]
    status = {"phase": pod.phase, "conditions": [{"type": "Ready", "status": ready}]}
    deleted = {"deletionTimestamp": "2026-01-01T00:00:00Z"} if pod.deleted else {}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": pod.name,
            "namespace": pod.namespace,
            "labels": dict(pod.labels),
            **deleted,
        },
        "spec": {"containers": [{"name": name} for name in pod.containers]},
        "status": {**status, **({"podIP": pod.ip} if pod.ip else {})},
    }


def _slices_json(service: Service, pods: Sequence[Pod]) -> Iterator[Mapping[str, Any]]:
    behind = [p for p in pods if p.ip and service.selector.items() <= p.labels.items()]
    for family, sign in (("IPv4", "."), ("IPv6", ":")):
        members = [_endpoint_json(pod, service.targets) for pod in behind if sign in str(pod.ip)]
        for start in range(0, len(members), service.slice_size):
            yield {
                "metadata": {
                    "name": f"{service.name}-{family.lower()}-{start}",
                    "labels": {"kubernetes.io/service-name": service.name},
                },
                "addressType": family,
                "endpoints": members[start : start + service.slice_size],
                "ports": [{"name": n, "port": p} for n, p in service.ports.items()],
            }


def _endpoint_json(pod: Pod, target: bool) -> Mapping[str, object]:
    state = {} if pod.ready is None else {"ready": pod.ready and not pod.deleted}
    return {
        "addresses": [pod.ip],
        "conditions": {**state, "terminating": pod.deleted},
        **({"targetRef": {"kind": "Pod", "name": pod.name}} if target else {}),
    }


def _selected(request: web.Request, labels: Mapping[str, str]) -> bool:
    """Whether the request's label selector, of equalities and sets, takes these labels."""
    terms = re.findall(r"[^,(]+(?:\([^)]*\))?", request.query.get("labelSelector", ""))
    return all(_takes(term, labels) for term in terms)


def _takes(term: str, labels: Mapping[str, str]) -> bool:
    if among := re.fullmatch(r"(\S+) (in|notin) \((.*)\)", term):
        return (labels.get(among[1]) in among[3].split(",")) == (among[2] == "in")
    key, equals, value = term.partition("=")
    if equals:
        return labels.get(key) == value
    return key[1:] not in labels if key.startswith("!") else key in labels


def _no_pod(request: web.Request) -> web.Response:
    return _failure(404, "NotFound", f'pods "{request.match_info["name"]}" not found')


def _failure(code: int, reason: str, message: str) -> web.Response:
    status = {"kind": "Status", "status": "Failure", "message": message, "reason": reason}
    return web.json_response({**status, "code": code}, status=code)


def _kubeconfig(folder: Path, port: int) -> Path:
    """JSON is YAML."""
    path = folder / "kubeconfig"
    config = {
        "current-context": "double",
        "contexts": [{"name": "double", "context": {"cluster": "double", "user": "double"}}],
        "clusters": [{"name": "double", "cluster": {"server": f"http://127.0.0.1:{port}"}}],
        "users": [{"name": "double", "user": {"token": "the-token-of-the-double"}}],
    }
    path.write_text(json.dumps(config))
    return path
