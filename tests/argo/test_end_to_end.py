"""Run the workflows of argo/ on a real Dagster and the embedded stack (`make test-argo`).

Each test starts from the state that the one before it left, as the workflows do: from a data
version to live traffic.
"""

import os
import sys
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from lora_assets.resources.registry import Registry
from tests.support.argo_workflows import TEMPLATES, WORKFLOWS, defaults_of
from tests.support.dagster_services import until
from tests.support.doubles.argo_controller import ArgoWorkflow, Node
from tests.support.doubles.flaky_network import FlakyNetwork
from tests.support.remote_dagster import RemoteDagster

pytestmark = pytest.mark.e2e

Parameters = Mapping[str, str]

LAX = {"max_eval_loss": "100", "max_perplexity": "1e9"}
LAX_GRADES = {"min_a_rate": "0", "max_c_rate": "1", "min_refusal_rate": "0", "max_concurrent": "4"}
IMPOSSIBLE_GRADES = {"min_a_rate": "1", "max_c_rate": "0", "max_concurrent": "4"}
SMALL_LOAD = {"max_samples": "8", "max_tokens": "8"}
LAX_SPEED = SMALL_LOAD | {"max_p95_latency": "600", "max_p95_ttft": "600", "min_throughput": "0"}
IMPOSSIBLE_SPEED = SMALL_LOAD | {"max_p95_latency": "0.000001"}


class Cluster:
    """Submits the workflows, with the embedded stack's addresses as parameters."""

    def __init__(
        self, dagster: RemoteDagster, network: FlakyNetwork, url: str, folder: Path
    ) -> None:
        self.dagster, self.network, self.folder = dagster, network, folder
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        sources = os.environ.get("PYTHONPATH", "")
        self.environment = {"PATH": path, "PYTHONPATH": sources, "DAGSTER_URL": url}
        self.addresses: Parameters = {
            "mlflow_tracking_uri": f"sqlite:///{dagster.home / 'mlflow.db'}",
            "s3_data_bucket": (dagster.home / "bucket").as_uri(),
            "vllm_url": dagster.environment["VLLM_URL"],
            "judge_url": dagster.environment["JUDGE_URL"],
            "prometheus_url": "",
            "deployment": "",
        }

    @property
    def registry(self) -> Registry:
        return self.dagster.resources.registry

    def workflow(self, name: str) -> ArgoWorkflow:
        return ArgoWorkflow(WORKFLOWS[name], TEMPLATES, self.environment, self.folder)

    def submit(self, workflow: ArgoWorkflow, **parameters: str) -> Node:
        declared = defaults_of(workflow.manifest)
        addresses = {k: v for k, v in self.addresses.items() if k.replace("_", "-") in declared}
        return workflow.submit(**addresses, **parameters)

    def statuses(self, workflow: ArgoWorkflow) -> list[str]:
        """Return the status of each run of this workflow's request, in the order of launch."""
        runs = self.dagster.runs(f"{workflow.uid}-{workflow.name}")
        return [run.status for run in sorted(runs, key=lambda run: run.created)]


@pytest.fixture(scope="module")
def cluster(dagster: RemoteDagster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    network = FlakyNetwork(dagster.url)
    with network.serving() as url:
        yield Cluster(dagster, network, url, tmp_path_factory.mktemp("argo"))


def test_a_stopped_workflow_terminates_its_run_and_starts_no_other(cluster: Cluster) -> None:
    workflow = cluster.workflow("train-validate-lora")
    with cluster.dagster.nothing_starts(), ThreadPoolExecutor(1) as pool:
        ended = pool.submit(cluster.submit, workflow, **LAX)
        until(lambda: cluster.statuses(workflow) == ["QUEUED"])
        workflow.stop()
        assert ended.result().phase == "Failed"
    assert "error: stopped; terminated " in workflow.node("download-data").log
    assert cluster.statuses(workflow) == ["CANCELED"]
    assert workflow.node("terminate").exit_codes == [0]


def test_training_outlives_a_lost_connection_and_a_failed_gate_ends_it_gracefully(
    cluster: Cluster,
) -> None:
    workflow = cluster.workflow("train-validate-lora")
    with ThreadPoolExecutor(1) as pool:
        ended = pool.submit(cluster.submit, workflow, max_eval_loss="0.0001")
        until(lambda: cluster.statuses(workflow)[1:] == ["STARTED"])
        cluster.network.down = True
        until(lambda: any(75 in node.exit_codes for node in workflow.nodes.values()))
        cluster.network.down = False
        outcome = ended.result()
    assert outcome.phase == "Succeeded", outcome.message
    assert outcome.outputs["result"] == "failed"
    assert outcome.outputs["model-version"] == ""
    assert "quality_gate stopped it: eval_loss" in workflow.node("quality-gate").log
    codes = workflow.node("train").exit_codes
    assert (codes[0], codes[-1]) == (75, 0)
    # A run for each step: the attempts at `train` followed the same one.
    assert cluster.statuses(workflow) == ["SUCCESS", "SUCCESS", "FAILURE"]
    assert cluster.registry.aliases() == {}


def test_training_makes_a_candidate(cluster: Cluster) -> None:
    workflow = cluster.workflow("train-validate-lora")
    ended = cluster.submit(workflow, **LAX)
    assert ended.phase == "Succeeded", workflow.nodes
    candidate = cluster.registry.aliases()["candidate"]
    page = f"{cluster.environment['DAGSTER_URL']}/runs/{ended.outputs['run-id']}"
    assert page in workflow.node("train").log
    assert ended.outputs == {
        "result": "passed",
        "run-id": ended.outputs["run-id"],
        "data-version": "1",
        "model-version": str(candidate.version),
        "digest": candidate.digest,
    }


def test_deployment_stages_the_candidate(cluster: Cluster) -> None:
    workflow = cluster.workflow("deploy-lora-adapter")
    ended = cluster.submit(workflow)
    assert ended.phase == "Succeeded", workflow.nodes
    aliases = cluster.registry.aliases()
    assert aliases["staged"] == aliases["candidate"]
    assert ended.outputs["digest"] == aliases["staged"].digest
    assert cluster.statuses(workflow) == ["SUCCESS", "SUCCESS"]


@pytest.mark.parametrize(
    ("name", "step", "gate", "impossible", "lax"),
    [
        ("evaluate-lora-adapter", "compare-decision", "eval", IMPOSSIBLE_GRADES, LAX_GRADES),
        ("performance-test-lora", "perf-decision", "perf", IMPOSSIBLE_SPEED, LAX_SPEED),
    ],
    ids=["evaluation", "performance"],
)
def test_a_failed_gate_fails_its_workflow_and_a_passed_one_sets_its_alias(
    name: str, step: str, gate: str, impossible: Parameters, lax: Parameters, cluster: Cluster
) -> None:
    staged = cluster.registry.aliases()["staged"]
    workflow = cluster.workflow(name)
    assert cluster.submit(workflow, **impossible).phase == "Failed"
    decision = workflow.node(step)
    assert f"{gate}_gate stopped it: " in decision.log
    assert decision.exit_codes == [1]
    assert decision.outputs["result"] == "failed"
    assert cluster.registry.aliases()[f"{gate}-failed"] == staged
    assert f"{gate}-passed" not in cluster.registry.aliases()

    workflow = cluster.workflow(name)
    ended = cluster.submit(workflow, **lax)
    assert ended.phase == "Succeeded", workflow.nodes
    assert ended.outputs["result"] == "passed"
    assert cluster.registry.aliases()[f"{gate}-passed"] == staged
    assert f"{gate}-failed" not in cluster.registry.aliases()


def test_promotion_after_evaluation_only_makes_it_live(cluster: Cluster) -> None:
    staged = cluster.registry.aliases()["staged"]
    cluster.registry.clear_alias("perf-passed")
    workflow = cluster.workflow("promote-lora-adapter")
    ended = cluster.submit(workflow, source_alias="eval-passed")
    assert ended.phase == "Succeeded", workflow.nodes
    assert ended.outputs["digest"] == staged.digest
    assert cluster.registry.aliases()["live"] == staged
    assert not {"staged", "eval-passed", "perf-passed"} & cluster.registry.aliases().keys()


def test_the_pipeline_takes_a_data_version_from_nothing_to_live(cluster: Cluster) -> None:
    """With nothing live: on a busy machine, two load tests differ too much."""
    version = cluster.registry.aliases()["live"]
    cluster.registry.clear_alias("live")
    workflow = cluster.workflow("lora-pipeline")
    ended = cluster.submit(workflow, **LAX, **LAX_GRADES, **LAX_SPEED)
    assert ended.phase == "Succeeded", {n: node.logs for n, node in workflow.nodes.items()}
    assert ended.outputs["result"] == "passed"
    assert ended.outputs["digest"] == version.digest
    aliases = cluster.registry.aliases()
    assert aliases["live"] == version
    assert not {"staged", "eval-passed", "perf-passed"} & aliases.keys()
