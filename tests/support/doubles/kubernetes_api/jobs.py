"""Jobs, as their controller runs them: one pod each, and what became of it as the status."""

from collections.abc import Callable, Mapping
from threading import Condition
from typing import Any
from uuid import uuid4

import kubernetes_validate
from aiohttp import web

from tests.support.doubles.kubernetes_api.job_pods import JobPod, Node, now
from tests.support.doubles.kubernetes_api.replies import failure, has_fields, not_found, selected

SCHEMA = "1.37"


class Job:
    """A Job without retries of its own, and its pod."""

    def __init__(
        self,
        body: Mapping[str, Any],
        namespace: str,
        node: Node,
        changed: Callable[[], None],
    ) -> None:
        self.body, self.namespace = body, namespace
        self.name: str = body["metadata"]["name"]
        self.labels: Mapping[str, str] = body["metadata"].get("labels", {})
        template = body["spec"]["template"]
        labels = {
            **template["metadata"].get("labels", {}),
            "job-name": self.name,
            "batch.kubernetes.io/job-name": self.name,
        }
        name = f"{self.name}-{uuid4().hex[:5]}"
        self.pod = JobPod(name, namespace, template, labels, node, changed)
        self._created = now()

    @property
    def ended(self) -> bool:
        """Whether its pod has ended or is gone, which is the same to a Job without retries."""
        return self.pod.exit_code is not None or self.pod.gone

    @property
    def succeeded(self) -> bool:
        return self.pod.exit_code == 0

    def json(self) -> Mapping[str, object]:
        """The object as the API gives it."""
        metadata = {
            **self.body["metadata"],
            "namespace": self.namespace,
            "creationTimestamp": self._created,
        }
        return {**self.body, "metadata": metadata, "status": self._status()}

    def _status(self) -> Mapping[str, object]:
        status: dict[str, object] = {"startTime": self._created}
        if not self.ended:
            return {**status, "active": 1}
        if self.succeeded:
            return {
                **status,
                "succeeded": 1,
                "conditions": [{"type": "Complete", "status": "True"}],
            }
        reason = {"type": "Failed", "status": "True", "reason": "BackoffLimitExceeded"}
        return {**status, "failed": 1, "conditions": [reason]}

    def events(self) -> list[Mapping[str, object]]:
        """What kubectl describe would show of the Job and of its pod."""
        pod, failed = self.pod, self.ended and not self.succeeded
        found = [self._event("Job", self.name, "SuccessfulCreate", f"Created pod: {pod.name}")]
        if failed and pod.exit_code is not None:
            found.append(self._event("Pod", pod.name, "Failed", f"exit code {pod.exit_code}", True))
        if failed:
            message = "Job has reached the specified backoff limit"
            found.append(self._event("Job", self.name, "BackoffLimitExceeded", message, True))
        return found

    def _event(
        self, kind: str, name: str, reason: str, message: str, warning: bool = False
    ) -> Mapping[str, object]:
        return {
            "metadata": {"name": f"{name}.{reason.lower()}", "namespace": self.namespace},
            "involvedObject": {"kind": kind, "name": name, "namespace": self.namespace},
            "reason": reason,
            "message": message,
            "type": "Warning" if warning else "Normal",
            "count": 1,
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

    def listed(self, request: web.Request) -> list[Mapping[str, object]]:
        return [
            job.json()
            for job in self._of(request)
            if selected(request, job.labels) and has_fields(request, {"metadata.name": job.name})
        ]

    def events(self, request: web.Request) -> list[Mapping[str, Any]]:
        found: list[Mapping[str, Any]] = [e for job in self._of(request) for e in job.events()]
        return [
            event
            for event in found
            if has_fields(request, {"involvedObject.name": event["involvedObject"]["name"]})
        ]

    async def create(self, request: web.Request) -> web.Response:
        body, namespace = await request.json(), request.match_info["namespace"]
        try:
            kubernetes_validate.validate(body, SCHEMA, strict=True)
        except kubernetes_validate.ValidationError as error:
            return failure(422, "Invalid", error.message)
        if body["spec"].get("backoffLimit") != 0:
            return failure(422, "Invalid", "the double runs no Job again: backoffLimit must be 0")
        if any(job.name == body["metadata"]["name"] for job in self._of(request)):
            return failure(409, "AlreadyExists", f'jobs "{body["metadata"]["name"]}" exists')
        job = Job(body, namespace, self._node, self._notify)
        self.made.append(job)
        job.pod.start()
        return web.json_response(job.json(), status=201)

    async def read(self, request: web.Request) -> web.Response:
        job = self._job(request)
        return web.json_response(job.json()) if job else not_found(request, "jobs.batch")

    async def delete(self, request: web.Request) -> web.Response:
        """Delete the Job, whose pod stays unless the request says otherwise."""
        job = self._job(request)
        if job is None:
            return not_found(request, "jobs.batch")
        self._deleted.add(job)
        if request.query.get("propagationPolicy", "Orphan") != "Orphan":
            job.pod.delete()
        self._notify()
        return web.json_response({"kind": "Status", "apiVersion": "v1", "status": "Success"})

    def _of(self, request: web.Request) -> list[Job]:
        namespace = request.match_info["namespace"]
        return [job for job in self.made if job.namespace == namespace and job not in self._deleted]

    def _job(self, request: web.Request) -> Job | None:
        return next((j for j in self._of(request) if j.name == request.match_info["name"]), None)

    def _notify(self) -> None:
        with self._changed:
            self._changed.notify_all()
