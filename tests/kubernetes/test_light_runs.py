"""A run of light steps has no pod but its own, also when that one is drained."""

import signal

import dagster as dg
import pytest
from dagster import DagsterEventType

from tests.kubernetes.test_end_to_end import LOOSE
from tests.support.dagster_services import NAMESPACE, until
from tests.support.kubernetes_cluster import Cluster

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def trained(cluster: Cluster) -> Cluster:
    """A cluster with a candidate, which is found again where another module has made it."""
    ops = ("adapter", "adapter_quality_gate")
    run = cluster.await_run(cluster.launch("train", {op: LOOSE[op] for op in ops}))
    assert run.status is dg.DagsterRunStatus.SUCCESS
    return cluster


def test_a_drained_run_of_light_steps_goes_on_in_another_pod(trained: Cluster) -> None:
    trained.server.send_signal(signal.SIGSTOP)
    try:
        run_id = trained.launch("deploy", {})

        def has_begun() -> bool:
            return bool(trained.instance.all_logs(run_id, of_type=DagsterEventType.STEP_START))

        until(has_begun, "the step that waits for the server")
        (worker,) = trained.workers(run_id)
        trained.core.delete_namespaced_pod(worker.pod.name, NAMESPACE)
        until(lambda: len(trained.workers(run_id)) == 2, "another worker")
    finally:
        trained.server.send_signal(signal.SIGCONT)
    run = trained.await_run(run_id)
    assert run.status is dg.DagsterRunStatus.SUCCESS
    steps = [job for job in trained.jobs.made if job.labels.get("dagster/run-id") == run_id]
    assert steps == list(trained.workers(run_id))
    kinds = {DagsterEventType.STEP_SUCCESS, DagsterEventType.STEP_UP_FOR_RETRY}
    logged = trained.instance.all_logs(run_id, of_type=kinds)
    ended = [entry.get_dagster_event().step_key for entry in logged]
    assert ended == ["staged_deployment", "staged_deployment_smoke_test"]
