"""A double of the Kubernetes API server: real HTTP and real websockets, no cluster behind them.

Its pods are local folders, and those of its Jobs local processes.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import Thread

from aiohttp import web

from tests.support.doubles.kubernetes_api.commands import Commands
from tests.support.doubles.kubernetes_api.job_pods import JobPod
from tests.support.doubles.kubernetes_api.jobs import Jobs
from tests.support.doubles.kubernetes_api.pods import Pod
from tests.support.doubles.kubernetes_api.replies import (
    failure,
    has_fields,
    not_found,
    page,
    selected,
)
from tests.support.doubles.kubernetes_api.services import Deployment, Service, slices_json

_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass
class KubernetesApi(Commands):
    """The double; what it holds may be changed while it serves. It has Jobs where it has a node."""

    pods: list[Pod] = field(default_factory=list)
    services: list[Service] = field(default_factory=list)
    deployments: list[Deployment] = field(default_factory=list)
    jobs: Jobs | None = None
    page_size: int = 500
    requests: list[str] = field(default_factory=list)

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
            if self.jobs is not None:
                self.jobs.end()
            loop.call_soon_threadsafe(self._stopping.set)
            asyncio.run_coroutine_threadsafe(runner.cleanup(), loop).result(30)
            loop.call_soon_threadsafe(loop.stop)
            thread.join(30)
            loop.close()

    def routes(self) -> list[web.RouteDef]:
        """What is served; more kinds of object are more routes."""
        namespace = "/api/v1/namespaces/{namespace}"
        pods, jobs = f"{namespace}/pods", "/apis/batch/v1/namespaces/{namespace}/jobs"
        slices = "/apis/discovery.k8s.io/v1/namespaces/{namespace}/endpointslices"
        routes = [
            web.get(pods, self._list_pods),
            web.get(pods + "/{name}", self._get_pod),
            web.get(pods + "/{name}/exec", self._exec),
            web.get(slices, self._list_slices),
            web.get(
                "/apis/apps/v1/namespaces/{namespace}/deployments/{name}", self._get_deployment
            ),
        ]
        if self.jobs is None:
            return routes
        return [
            *routes,
            web.delete(pods + "/{name}", self._delete_pod),
            web.get(pods + "/{name}/log", self._log),
            web.get(f"{namespace}/events", self._list_events),
            web.get(jobs, self._list_jobs),
            web.post(jobs, self.jobs.create),
            web.get(jobs + "/{name}", self.jobs.read),
            web.get(jobs + "/{name}/status", self.jobs.read),
            web.delete(jobs + "/{name}", self.jobs.delete),
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
        found = [
            pod.json()
            for pod in self._pods(request)
            if selected(request, pod.labels) and has_fields(request, {"metadata.name": pod.name})
        ]
        return page(request, "v1", "PodList", found, self.page_size)

    async def _get_pod(self, request: web.Request) -> web.Response:
        pod = self._pod(request)
        return web.json_response(pod.json()) if pod else not_found(request, "pods")

    async def _delete_pod(self, request: web.Request) -> web.Response:
        pod = self._pod(request)
        if pod is None:
            return not_found(request, "pods")
        if isinstance(pod, Pod):
            return failure(405, "MethodNotAllowed", "the double deletes pods of Jobs only")
        pod.delete()
        return web.json_response(pod.json())

    async def _exec(self, request: web.Request) -> web.StreamResponse:
        pod = self._pod(request)
        if not isinstance(pod, Pod):
            return not_found(request, "pods")
        return await self.execute(request, pod)

    async def _log(self, request: web.Request) -> web.Response:
        pod = self._pod(request)
        if not isinstance(pod, JobPod) or not pod.log.exists():
            return not_found(request, "pods")
        lines = pod.log.read_text(errors="replace").splitlines(keepends=True)
        return web.Response(text="".join(lines[-int(request.query.get("tailLines", 0)) :]))

    async def _list_events(self, request: web.Request) -> web.Response:
        assert self.jobs
        return page(request, "v1", "EventList", self.jobs.events(request), self.page_size)

    async def _list_jobs(self, request: web.Request) -> web.Response:
        assert self.jobs
        return page(request, "batch/v1", "JobList", self.jobs.listed(request), self.page_size)

    async def _list_slices(self, request: web.Request) -> web.Response:
        pods = [pod for pod in self._pods(request) if isinstance(pod, Pod)]
        found = [
            part
            for service in self.services
            if service.namespace == request.match_info["namespace"]
            for part in slices_json(service, pods)
            if selected(request, part["metadata"]["labels"])
        ]
        version = "discovery.k8s.io/v1"
        return page(request, version, "EndpointSliceList", found, self.page_size)

    async def _get_deployment(self, request: web.Request) -> web.Response:
        place = (request.match_info["namespace"], request.match_info["name"])
        for deployment in self.deployments:
            if (deployment.namespace, deployment.name) == place:
                return web.json_response(deployment.json())
        return not_found(request, "deployments.apps")

    def _pods(self, request: web.Request) -> list[Pod | JobPod]:
        everything = [*self.pods, *(self.jobs.pods if self.jobs else ())]
        return [pod for pod in everything if pod.namespace == request.match_info["namespace"]]

    def _pod(self, request: web.Request) -> Pod | JobPod | None:
        return next((p for p in self._pods(request) if p.name == request.match_info["name"]), None)


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
