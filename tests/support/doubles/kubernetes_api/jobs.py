"""Jobs, as their controller runs them: one pod each, and what became of it as the status."""

from collections.abc import Callable, Mapping
from threading import Condition
from typing import Any
from uuid import uuid4

import kubernetes_validate
from aiohttp import web

from tests.support.doubles.kubernetes_api.job_pods import JobPod, Node, now
from tests.support.doubles.kubernetes_api.replies import Refused, listed, named

SCHEMA = "1.37"


class Job:
    """A Job without retries of its own, and its pod."""

    def __init__(
        self, body: Mapping[str, Any], namespace: str, node: Node, changed: Callable[[], None]
    ) -> None:
        self.body, self.namespace = body, namespace
        self.name: str = body["metadata"]["name"]
        self.labels: Mapping[str, str] = body["metadata"].get("labels", {})
        template = body["spec"]["template"]
        own = {"job-name": self.name, "batch.kubernetes.io/job-name": self.name}
        labels = {**template["metadata"].get("labels", {}), **own}
        name = f"{self.name}-{uuid4().hex[:5]}"
        self.pod = JobPod(name, namespace, labels, template["spec"], node, changed)
        self._created = now()

    @property
    def ended(self) -> bool:
        """Whether its pod has ended or is gone, which is the same to a Job without retries."""
        return self.pod.exit_code is not None or self.pod.gone

    def json(self) -> Mapping[str, Any]:
        """The object as the API gives it."""
        own = {"namespace": self.namespace, "creationTimestamp": self._created}
        if not self.ended:
            status: Mapping[str, object] = {"active": 1}
        elif self.pod.exit_code == 0:
            complete = {"type": "Complete", "status": "True"}
            status = {"succeeded": 1, "conditions": [complete]}
        else:
            failed = {"type": "Failed", "status": "True", "reason": "BackoffLimitExceeded"}
            status = {"failed": 1, "conditions": [failed]}
        return {
            **self.body,
            "metadata": {**self.body["metadata"], **own},
            "status": {"startTime": self._created, **status},
        }


class Jobs:
    """All Jobs that were ever made, also those that were deleted since."""

    def __init__(self, node: Node) -> None:
        self.made: list[Job] = []
        self._deleted: set[Job] = set()
        self._node = node
        self._changed = Condition()

    @property
    def pods(self) -> list[JobPod]:
        return [job.pod for job in self.made if not job.pod.gone]

    def wait_for(self, condition: Callable[[], bool], what: str, timeout_s: float) -> None:
        """Return when the condition holds, which is looked at when a Job or pod changes."""
        with self._changed:
            assert self._changed.wait_for(condition, timeout_s), f"waited for {what} in vain"

    def end(self) -> None:
        """End whatever still runs, and wait for it."""
        for job in self.made:
            job.pod.kill()
        self.wait_for(lambda: not any(job.pod.running for job in self.made), "the end", 30)

    def routes(self, namespace: str) -> list[web.RouteDef]:
        """What is served of Jobs and of their pods, which lie in `namespace` of the core API."""
        jobs = "/apis/batch/v1/namespaces/{namespace}/jobs"
        return [
            web.delete(f"{namespace}/pods/{{name}}", self._delete_pod),
            web.get(f"{namespace}/pods/{{name}}/log", self._log),
            web.get(f"{namespace}/events", self._list_events),
            web.get(jobs, self._list),
            web.post(jobs, self._create),
            web.get(f"{jobs}/{{name}}", self._read),
            web.get(f"{jobs}/{{name}}/status", self._read),
            web.delete(f"{jobs}/{{name}}", self._delete),
        ]

    async def _delete_pod(self, request: web.Request) -> web.Response:
        pod = named(request, "pods", self.pods)
        pod.delete()
        return web.json_response(pod.json())

    async def _log(self, request: web.Request) -> web.Response:
        log = named(request, "pods", self.pods).log
        lines = log.read_text(errors="replace").splitlines(keepends=True) if log.exists() else []
        return web.Response(text="".join(lines[-int(request.query.get("tailLines", 0)) :]))

    async def _list_events(self, request: web.Request) -> web.Response:
        return listed(request, "v1", "EventList", [])

    async def _list(self, request: web.Request) -> web.Response:
        return listed(request, "batch/v1", "JobList", [job.json() for job in self._of(request)])

    async def _create(self, request: web.Request) -> web.Response:
        body, namespace = await request.json(), request.match_info["namespace"]
        try:
            kubernetes_validate.validate(body, SCHEMA, strict=True)
        except kubernetes_validate.ValidationError as error:
            raise Refused(422, "Invalid", error.message) from None
        if body["spec"].get("backoffLimit") != 0:
            raise Refused(422, "Invalid", "the double runs no Job again: backoffLimit must be 0")
        name = body["metadata"]["name"]
        if any(job.name == name for job in self._of(request)):
            raise Refused(409, "AlreadyExists", f'jobs.batch "{name}" already exists')
        job = Job(body, namespace, self._node, self._notify)
        self.made.append(job)
        return web.json_response(job.json(), status=201)

    async def _read(self, request: web.Request) -> web.Response:
        return web.json_response(self._job(request).json())

    async def _delete(self, request: web.Request) -> web.Response:
        """Delete the Job, whose pod stays unless the request says otherwise."""
        job = self._job(request)
        self._deleted.add(job)
        if request.query.get("propagationPolicy", "Orphan") != "Orphan":
            job.pod.delete()
        self._notify()
        return web.json_response({"kind": "Status", "apiVersion": "v1", "status": "Success"})

    def _of(self, request: web.Request) -> list[Job]:
        namespace = request.match_info["namespace"]
        return [job for job in self.made if job.namespace == namespace and job not in self._deleted]

    def _job(self, request: web.Request) -> Job:
        return named(request, "jobs.batch", self._of(request))

    def _notify(self) -> None:
        with self._changed:
            self._changed.notify_all()
