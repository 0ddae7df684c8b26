"""A data version goes from nothing to live, a pod per step, while pods are lost on the way."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import dagster as dg
import pytest
from dagster import DagsterEventType
from kubernetes.utils import parse_quantity
from mlflow import MlflowClient

from lora_assets.definitions import ASSETS, CHECKS
from tests.kubernetes.test_step_pods import ROWS
from tests.support.dagster_services import NAMESPACE, PATIENCE_S, until
from tests.support.doubles.kubernetes_api import Job
from tests.support.kubernetes_cluster import (
    CHANGED_RESOURCES,
    CHANGED_STEP,
    DEPLOYMENT_IMAGE,
    EVALUATION_CLAIM,
    TRAINING_CLAIM,
    TRAINING_IMAGE,
    Cluster,
)

pytestmark = pytest.mark.e2e

STEPS = tuple(definition.op.name for definition in (*ASSETS, *CHECKS))

LOOSE: Mapping[str, Mapping[str, Any]] = {
    "adapter": {"num_epochs": 2, "evaluations": 4},
    "adapter_quality_gate": {"max_eval_loss": 100, "max_perplexity": 1e9},
    "eval_grades": {"max_concurrent": 1},
    "eval_grades_eval_gate": {"min_a_rate": 0, "max_c_rate": 1, "min_refusal_rate": 0},
    "perf_metrics": {"max_samples": 16, "max_tokens": 16},
    "perf_metrics_perf_gate": {"max_p95_latency": 600, "max_p95_ttft": 600, "min_throughput": 0},
    "live_deployment": {"source_alias": "perf-passed"},
}
"""A short training, and gates that let it pass: this is about execution."""


@dataclass(frozen=True)
class Lifecycle:
    """The run that the tests look at, when it has ended."""

    cluster: Cluster
    run: dg.DagsterRun
    answers_before_the_drain: str

    def jobs(self, step: str) -> list[Job]:
        return list(self.cluster.of_step(self.run.run_id, step))

    def events(self, kind: DagsterEventType) -> list[dg.DagsterEvent]:
        entries = self.cluster.instance.all_logs(self.run.run_id, of_type=kind)
        return [entry.get_dagster_event() for entry in entries]


def read_answers(cluster: Cluster) -> str:
    """The journal of the candidate's answers, as it lies on the evaluation's volume."""
    journals = cluster.claims[EVALUATION_CLAIM].rglob("answers-candidate.jsonl")
    return "".join(path.read_text() for path in journals)


@pytest.fixture(scope="module")
def lifecycle(cluster: Cluster) -> Lifecycle:
    """One run, whose training pod and worker are killed, and whose evaluation is drained."""
    run_id = cluster.launch("lifecycle", LOOSE)
    checkpoints = cluster.claims[TRAINING_CLAIM]
    until(lambda: any(checkpoints.rglob("checkpoint-*.sha256")), "a checkpoint")
    (training,) = cluster.of_step(run_id, "adapter")
    training.pod.kill()
    until(lambda: len(cluster.of_step(run_id, "adapter")) == 2, "training once more")
    (worker,) = cluster.workers(run_id)
    worker.pod.kill()
    until(lambda: len(cluster.workers(run_id)) == 2, "another worker")
    until(lambda: read_answers(cluster).count("\n") > 4, "some answers")
    (evaluation,) = cluster.of_step(run_id, "eval_grades")
    before = read_answers(cluster)
    cluster.core.delete_namespaced_pod(evaluation.pod.name, NAMESPACE)
    run = cluster.await_run(run_id)
    # A step says that it is done a moment before its pod ends.
    cluster.jobs.wait_for(lambda: all(job.ended for job in cluster.jobs.made), "pods", PATIENCE_S)
    return Lifecycle(cluster, run, before)


def test_it_ends_live_with_a_pod_for_each_step(lifecycle: Lifecycle) -> None:
    assert lifecycle.run.status is dg.DagsterRunStatus.SUCCESS
    assert {step for step in STEPS if lifecycle.jobs(step)} == set(STEPS)
    live = lifecycle.cluster.resources.registry.aliases()["live"]
    fleet = lifecycle.cluster.resources.fleet
    assert set(fleet.discover().serving(fleet.live_slot).values()) == {live.digest}


@pytest.mark.parametrize("step", STEPS)
def test_each_step_has_the_resources_of_the_specification_or_of_its_deployment(
    lifecycle: Lifecycle, step: str
) -> None:
    gpus = {"nvidia.com/gpu": "1"} if step == "adapter" else {}
    changed = CHANGED_RESOURCES if step == CHANGED_STEP else {"requests": {}, "limits": {}}
    for job in lifecycle.jobs(step):
        (container,) = job.pod.spec["containers"]
        assert container["resources"] == {
            "requests": {**ROWS[step].requests, **gpus, **changed["requests"]},
            "limits": {**ROWS[step].limits, **gpus, **changed["limits"]},
        }
        assert container["image"] == (TRAINING_IMAGE if step == "adapter" else DEPLOYMENT_IMAGE)


def test_no_step_takes_more_memory_than_its_limit(lifecycle: Lifecycle) -> None:
    peaks = {step: lifecycle.jobs(step)[-1].pod.peak_memory for step in STEPS}
    limits = {step: parse_quantity(row.limits["memory"]) for step, row in ROWS.items()}
    assert min(peaks.values()) > 1 << 20
    assert {step: peak for step, peak in peaks.items() if peak > limits[step]} == {}, f"of {peaks}"


def test_training_goes_on_from_the_checkpoint_of_the_killed_pod(lifecycle: Lifecycle) -> None:
    first, second = lifecycle.jobs("adapter")
    assert (first.pod.exit_code, second.pod.exit_code) == (137, 0)
    client = MlflowClient(lifecycle.cluster.resources.tracking.tracking_uri)
    experiment = client.get_experiment_by_name("vllm-lora-training")
    assert experiment
    (run,) = client.search_runs([experiment.experiment_id])
    evaluated = [m.step for m in client.get_metric_history(run.info.run_id, "eval_loss")]
    # A training from the beginning would have evaluated the first steps once more.
    assert len(evaluated) == 4
    assert evaluated == sorted(set(evaluated))


def test_the_loss_of_a_pod_is_what_the_run_says(lifecycle: Lifecycle) -> None:
    retries = lifecycle.events(DagsterEventType.STEP_UP_FOR_RETRY)
    assert [event.step_key for event in retries] == ["adapter", "eval_grades"]
    killed, drained = (event.step_retry_data.error for event in retries)
    assert killed
    assert "Discovered failed Kubernetes job" in killed.message
    assert drained
    assert drained.cause
    assert drained.cause.cls_name == "DagsterExecutionInterruptedError"


def test_a_drained_evaluation_keeps_the_answers_that_it_had(lifecycle: Lifecycle) -> None:
    _, second = lifecycle.jobs("eval_grades")
    assert second.pod.exit_code == 0
    answers = read_answers(lifecycle.cluster)
    rows = lifecycle.cluster.resources.data_bucket.read("1")[1]["eval"]
    assert 0 < lifecycle.answers_before_the_drain.count("\n") < len(rows)
    assert answers.startswith(lifecycle.answers_before_the_drain)
    keys = [json.loads(line)["key"] for line in answers.splitlines()]
    assert len(keys) == len(set(keys)) == len(rows)


def test_a_lost_worker_is_noticed_and_the_run_goes_on_in_another(lifecycle: Lifecycle) -> None:
    first, second = lifecycle.cluster.workers(lifecycle.run.run_id)
    assert (first.pod.exit_code, second.pod.exit_code) == (137, 0)
    messages = [event.message or "" for event in lifecycle.events(DagsterEventType.ENGINE_EVENT)]
    assert any("Resuming run" in message for message in messages)


def test_a_step_that_fails_is_not_tried_again(cluster: Cluster, lifecycle: Lifecycle) -> None:
    run_id = cluster.launch("promote", {"live_deployment": {"source_alias": "eval-failed"}})
    run = cluster.await_run(run_id)
    assert run.status is dg.DagsterRunStatus.FAILURE
    assert len(cluster.of_step(run_id, "live_deployment")) == 1
    (failure,) = cluster.instance.all_logs(run_id, of_type=DagsterEventType.STEP_FAILURE)
    error = failure.get_dagster_event().step_failure_data.error
    assert error
    assert error.cause
    assert error.cause.cls_name == "LoraAssetsError"


def test_a_stopped_run_takes_its_training_with_it(cluster: Cluster, lifecycle: Lifecycle) -> None:
    """Another training than the lifecycle's, since that one's adapter would be found again."""
    checkpoints = cluster.claims[TRAINING_CLAIM]
    before = set(checkpoints.rglob("checkpoint-*.sha256"))
    run_id = cluster.launch("train", {"adapter": {"num_epochs": 500, "evaluations": 500}})
    until(lambda: set(checkpoints.rglob("checkpoint-*.sha256")) - before, "a checkpoint")
    (training,) = cluster.of_step(run_id, "adapter")
    cluster.dagster.terminate(run_id)
    assert cluster.await_run(run_id).status is dg.DagsterRunStatus.CANCELED
    cluster.jobs.wait_for(lambda: training.ended, "the end of the training's pod", PATIENCE_S)
    assert cluster.of_step(run_id, "adapter") == [training]
