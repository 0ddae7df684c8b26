"""A double of the Kubernetes API server: real HTTP and real websockets, no cluster behind them.

Its pods are local folders, and those of its Jobs local processes.
"""

import json
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from aiohttp import web

from tests.support.doubles.background import serving_app
from tests.support.doubles.kubernetes_api.commands import Commands
from tests.support.doubles.kubernetes_api.job_pods import JobPod
from tests.support.doubles.kubernetes_api.jobs import Jobs
from tests.support.doubles.kubernetes_api.pods import Pod
from tests.support.doubles.kubernetes_api.replies import Refused, listed, named
from tests.support.doubles.kubernetes_api.services import Deployment, Service, slices_json

_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass
class KubernetesApi(Commands):
    """The double; what it holds may be changed while it serves. It has Jobs where it has a node."""

    pods: list[Pod] = field(default_factory=list)
    services: list[Service] = field(default_factory=list)
    deployments: list[Deployment] = field(default_factory=list)
    jobs: Jobs | None = None
    requests: list[str] = field(default_factory=list)

    @contextmanager
    def serving(self, folder: Path) -> Iterator[Path]:
        """Serve on a free port; yields a kubeconfig in `folder`, which outlives the server."""
        app = web.Application(middlewares=[self._recorded])
        app.add_routes(self.routes())
        app.on_shutdown.append(self._stop)
        # As long a request line as a real API server reads: a command travels in it.
        with serving_app(app, max_line_size=1 << 20) as port:
            try:
                yield _kubeconfig(folder, port)
            finally:
                if self.jobs is not None:
                    self.jobs.end()

    def routes(self) -> list[web.RouteDef]:
        """What is served; more kinds of object are more routes."""
        namespace = "/api/v1/namespaces/{namespace}"
        slices = "/apis/discovery.k8s.io/v1/namespaces/{namespace}/endpointslices"
        deployments = "/apis/apps/v1/namespaces/{namespace}/deployments"
        routes = [
            web.get(f"{namespace}/pods", self._list_pods),
            web.get(f"{namespace}/pods/{{name}}", self._get_pod),
            web.get(f"{namespace}/pods/{{name}}/exec", self._exec),
            web.get(slices, self._list_slices),
            web.get(f"{deployments}/{{name}}", self._get_deployment),
        ]
        return [*routes, *self.jobs.routes(namespace)] if self.jobs else routes

    async def _stop(self, app: web.Application) -> None:
        self._stopping.set()

    @web.middleware
    async def _recorded(self, request: web.Request, handler: _Handler) -> web.StreamResponse:
        self.requests.append(f"{request.method} {request.path}")
        try:
            return await handler(request)
        except Refused as refused:
            return refused.reply()

    async def _list_pods(self, request: web.Request) -> web.Response:
        pods = [pod.json() for pod in self._pods(request)]
        return listed(request, "v1", "PodList", pods)

    async def _get_pod(self, request: web.Request) -> web.Response:
        return web.json_response(named(request, "pods", self._pods(request)).json())

    async def _exec(self, request: web.Request) -> web.StreamResponse:
        return await self.execute(request, named(request, "pods", self.pods))

    async def _list_slices(self, request: web.Request) -> web.Response:
        pods = [pod for pod in self._pods(request) if isinstance(pod, Pod)]
        slices = [
            part
            for service in self.services
            if service.namespace == request.match_info["namespace"]
            for part in slices_json(service, pods)
        ]
        version = "discovery.k8s.io/v1"
        return listed(request, version, "EndpointSliceList", slices)

    async def _get_deployment(self, request: web.Request) -> web.Response:
        return web.json_response(named(request, "deployments.apps", self.deployments).json())

    def _pods(self, request: web.Request) -> list[Pod | JobPod]:
        everything = [*self.pods, *(self.jobs.pods if self.jobs else ())]
        return [pod for pod in everything if pod.namespace == request.match_info["namespace"]]


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
