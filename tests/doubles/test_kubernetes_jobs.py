"""The double's Jobs, as the real client of Kubernetes sees them."""

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from kubernetes.client import ApiException, BatchV1Api, CoreV1Api
from kubernetes.config import new_client_from_config

from tests.support.doubles.kubernetes_api import Jobs, KubernetesApi, Node

pytestmark = pytest.mark.integration

IMAGE = "registry.test/python:3"
CLAIM, MOUNT = "work", "/var/lib/work"


@pytest.fixture
def jobs(tmp_path: Path) -> Jobs:
    (tmp_path / "claim").mkdir()
    secrets = {"token": {"key": "the-secret"}}
    node = Node(tmp_path / "pods", (IMAGE,), {}, {CLAIM: tmp_path / "claim"}, secrets)
    return Jobs(node)


@pytest.fixture
def clients(jobs: Jobs, tmp_path: Path) -> Iterator[tuple[BatchV1Api, CoreV1Api]]:
    with KubernetesApi(jobs=jobs).serving(tmp_path) as kubeconfig:
        client = new_client_from_config(str(kubeconfig))
        yield BatchV1Api(client), CoreV1Api(client)


def job(program: str, **container: Any) -> Mapping[str, Any]:
    """A Job that runs a Python program, with the claim mounted."""
    mounted = {
        "name": "main",
        "image": IMAGE,
        "command": [sys.executable, "-c", program],
        "volumeMounts": [{"name": "work", "mountPath": MOUNT}],
        **container,
    }
    pod = {
        "restartPolicy": "Never",
        "containers": [mounted],
        "volumes": [{"name": "work", "persistentVolumeClaim": {"claimName": CLAIM}}],
    }
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": "job"},
        "spec": {"backoffLimit": 0, "template": {"metadata": {"name": "job"}, "spec": pod}},
    }


def ended(jobs: Jobs) -> None:
    jobs.wait_for(lambda: jobs.made[0].ended, "the end of the Job", 60)


def test_a_job_runs_its_command_with_its_environment_and_volume(
    jobs: Jobs, clients: tuple[BatchV1Api, CoreV1Api], tmp_path: Path
) -> None:
    batch, core = clients
    program = (
        "import os, pathlib; print(os.environ['TOKEN']);"
        "pathlib.Path(os.environ['WORK'], 'done').write_text('yes')"
    )
    secret = {"valueFrom": {"secretKeyRef": {"name": "token", "key": "key"}}}
    variables = [{"name": "TOKEN", **secret}, {"name": "WORK", "value": MOUNT}]
    batch.create_namespaced_job("dagster", job(program, env=variables))
    ended(jobs)
    assert batch.read_namespaced_job_status("job", "dagster").status.succeeded == 1
    (pod,) = core.list_namespaced_pod("dagster", label_selector="job-name=job").items
    assert pod.status.phase == "Succeeded"
    log = core.read_namespaced_pod_log(pod.metadata.name, "dagster", _preload_content=False)
    assert log.data == b"the-secret\n"
    assert (tmp_path / "claim" / "done").read_text() == "yes"


NO_SECRET = {"name": "A", "valueFrom": {"secretKeyRef": {"name": "none", "key": "key"}}}


@pytest.mark.parametrize("container", [{"image": "registry.test/none:1"}, {"env": [NO_SECRET]}])
def test_a_job_that_would_wait_for_ever_is_refused(
    jobs: Jobs, clients: tuple[BatchV1Api, CoreV1Api], container: Mapping[str, Any]
) -> None:
    with pytest.raises(ApiException, match="500"):
        clients[0].create_namespaced_job("dagster", job("", **container))
    assert jobs.made == []


@pytest.mark.parametrize("change", [{"backoffLimit": 1}, {"backofLimit": 0}])
def test_an_invalid_job_is_refused(
    clients: tuple[BatchV1Api, CoreV1Api], change: Mapping[str, Any]
) -> None:
    body = dict(job(""))
    body["spec"] = {**body["spec"], **change}
    with pytest.raises(ApiException, match="422"):
        clients[0].create_namespaced_job("dagster", body)


def test_a_job_is_deleted_without_its_pod(
    jobs: Jobs, clients: tuple[BatchV1Api, CoreV1Api]
) -> None:
    batch, core = clients
    batch.create_namespaced_job("dagster", job("import signal; signal.pause()"))
    batch.delete_namespaced_job("job", "dagster")
    assert batch.list_namespaced_job("dagster").items == []
    assert len(core.list_namespaced_pod("dagster").items) == 1
    assert jobs.made[0].pod.running
