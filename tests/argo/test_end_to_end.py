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

from tests.support.argo_workflows import TEMPLATES, WORKFLOWS, defaults_of
from tests.support.dagster_services import until
from tests.support.doubles.argo_controller import ArgoWorkflow, Node
from tests.support.doubles.flaky_network import FlakyNetwork
from tests.support.remote_dagster import RemoteDagster

pytestmark = pytest.mark.e2e

LAX = {"max_eval_loss": "100", "max_perplexity": "1e9"}


class Cluster:
    """Submits the workflows, with the embedded stack's addresses as parameters."""

    def __init__(self, dagster: RemoteDagster, network: FlakyNetwork, url: str) -> None:
        self.dagster = dagster
        self.network = network
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        sources = os.environ.get("PYTHONPATH", "")
        self.environment = {"PATH": path, "PYTHONPATH": sources, "DAGSTER_URL": url}
        self.addresses: Mapping[str, str] = {
            "mlflow_tracking_uri": f"sqlite:///{dagster.home / 'mlflow.db'}",
            "s3_data_bucket": (dagster.home / "bucket").as_uri(),
            "vllm_url": dagster.environment["VLLM_URL"],
            "judge_url": dagster.environment["JUDGE_URL"],
            "prometheus_url": "",
            "deployment": "",
        }

    def workflow(self, name: str, folder: Path) -> ArgoWorkflow:
        return ArgoWorkflow(WORKFLOWS[name], TEMPLATES, self.environment, folder)

    def submit(self, workflow: ArgoWorkflow, **parameters: str) -> Node:
        declared = defaults_of(workflow.manifest)
        addresses = {k: v for k, v in self.addresses.items() if k.replace("_", "-") in declared}
        return workflow.submit(**addresses, **parameters)

    def statuses(self, workflow: ArgoWorkflow) -> list[str]:
        """Return the status of each run of this workflow's request, in the order of launch."""
        runs = self.dagster.runs(f"{workflow.uid}-{workflow.name}")
        return [run.status for run in sorted(runs, key=lambda run: run.created)]


@pytest.fixture(scope="module")
def cluster(dagster: RemoteDagster) -> Iterator[Cluster]:
    network = FlakyNetwork(dagster.url)
    with network.serving() as url:
        yield Cluster(dagster, network, url)


def log(workflow: ArgoWorkflow, step: str) -> str:
    (node,) = [node for name, node in workflow.nodes.items() if name.endswith(f".{step}")]
    return "".join(node.logs)


def test_an_unknown_profile_is_one_line_before_anything_is_launched(
    cluster: Cluster, tmp_path: Path
) -> None:
    """The specification's own example gives lora-config=extended, which does not exist."""
    workflow = cluster.workflow("train-validate-lora", tmp_path)
    ended = cluster.submit(workflow, lora_config="extended", num_epochs="5", learning_rate="1e-4")
    assert ended.phase == "Failed"
    (line,) = log(workflow, "download-data").splitlines()
    assert line.startswith("error: lora_config = 'extended' is not possible")
    assert cluster.statuses(workflow) == []


def test_an_impossible_last_gate_is_one_line_before_the_pipeline_launches_anything(
    cluster: Cluster, tmp_path: Path
) -> None:
    workflow = cluster.workflow("lora-pipeline", tmp_path)
    ended = cluster.submit(workflow, min_throughput="-1")
    assert ended.phase == "Failed"
    (line,) = log(workflow, "check").splitlines()
    assert line.startswith("error: --min-throughput -1.0 is not possible")
    assert log(workflow, "terminate") == "terminated nothing\n"
    assert {name.rpartition(".")[2] for name, node in workflow.nodes.items() if node.logs} == {
        "check",
        "terminate",
    }


def test_a_stopped_workflow_terminates_its_run_and_starts_no_other(
    cluster: Cluster, tmp_path: Path
) -> None:
    workflow = cluster.workflow("train-validate-lora", tmp_path)
    with cluster.dagster.nothing_starts(), ThreadPoolExecutor(1) as pool:
        ended = pool.submit(cluster.submit, workflow, **LAX)
        until(lambda: cluster.statuses(workflow) == ["QUEUED"])
        workflow.stop()
        assert ended.result().phase == "Failed"
    assert "error: stopped; terminated " in log(workflow, "download-data")
    assert cluster.statuses(workflow) == ["CANCELED"]
    (handler,) = [node for name, node in workflow.nodes.items() if name.endswith(".terminate")]
    assert handler.exit_codes == [0]


def test_training_outlives_a_lost_connection_and_a_failed_gate_ends_it_gracefully(
    cluster: Cluster, tmp_path: Path
) -> None:
    workflow = cluster.workflow("train-validate-lora", tmp_path)
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
    assert "quality_gate stopped it: eval_loss" in log(workflow, "quality-gate")
    (train,) = [node for name, node in workflow.nodes.items() if name.endswith(".train")]
    assert train.exit_codes[0] == 75
    assert train.exit_codes[-1] == 0
    # A run for each step: the attempts at `train` followed the same one.
    assert cluster.statuses(workflow) == ["SUCCESS", "SUCCESS", "FAILURE"]
    assert cluster.dagster.resources.registry.aliases() == {}


def test_training_makes_a_candidate(cluster: Cluster, tmp_path: Path) -> None:
    workflow = cluster.workflow("train-validate-lora", tmp_path)
    ended = cluster.submit(workflow, **LAX)
    assert ended.phase == "Succeeded", log(workflow, "quality-gate")
    candidate = cluster.dagster.resources.registry.aliases()["candidate"]
    train = log(workflow, "train")
    assert f"{cluster.environment['DAGSTER_URL']}/runs/{ended.outputs['run-id']}" in train
    assert ended.outputs == {
        "result": "passed",
        "run-id": ended.outputs["run-id"],
        "data-version": "1",
        "model-version": str(candidate.version),
        "digest": candidate.digest,
    }


def test_deployment_stages_the_candidate(cluster: Cluster, tmp_path: Path) -> None:
    workflow = cluster.workflow("deploy-lora-adapter", tmp_path)
    ended = cluster.submit(workflow)
    assert ended.phase == "Succeeded", workflow.nodes
    aliases = cluster.dagster.resources.registry.aliases()
    assert aliases["staged"] == aliases["candidate"]
    assert ended.outputs["digest"] == aliases["staged"].digest
    assert cluster.statuses(workflow) == ["SUCCESS", "SUCCESS"]


def test_a_failed_evaluation_fails_the_workflow(cluster: Cluster, tmp_path: Path) -> None:
    workflow = cluster.workflow("evaluate-lora-adapter", tmp_path)
    ended = cluster.submit(workflow, min_a_rate="1", max_c_rate="0", max_concurrent="4")
    assert ended.phase == "Failed"
    (gate,) = [node for name, node in workflow.nodes.items() if name.endswith("compare-decision")]
    assert "eval_gate stopped it: " in gate.logs[0]
    assert gate.exit_codes == [1]
    assert gate.outputs["result"] == "failed"
    aliases = cluster.dagster.resources.registry.aliases()
    assert aliases["eval-failed"] == aliases["staged"]
    assert "eval-passed" not in aliases


def test_evaluation_grades_in_one_run_and_passes(cluster: Cluster, tmp_path: Path) -> None:
    workflow = cluster.workflow("evaluate-lora-adapter", tmp_path)
    lax = {"min_a_rate": "0", "max_c_rate": "1", "min_refusal_rate": "0"}
    ended = cluster.submit(workflow, **lax, max_concurrent="4")
    assert ended.phase == "Succeeded", workflow.nodes
    assert ended.outputs["result"] == "passed"
    statuses = cluster.statuses(workflow)
    # Both inferences may launch the run that they share; one too many is terminated.
    assert [status for status in statuses if status != "CANCELED"] == ["SUCCESS"] * 3
    shared = {
        node.outputs["run-id"]
        for name, node in workflow.nodes.items()
        if name.endswith(("inference-candidate", "inference-live", "judge-answers"))
    }
    assert len(shared) == 1
    aliases = cluster.dagster.resources.registry.aliases()
    assert aliases["eval-passed"] == aliases["staged"]
    assert "eval-failed" not in aliases


def test_a_failed_performance_gate_fails_the_workflow(cluster: Cluster, tmp_path: Path) -> None:
    workflow = cluster.workflow("performance-test-lora", tmp_path)
    ended = cluster.submit(workflow, max_p95_latency="0.000001", max_samples="8", max_tokens="8")
    assert ended.phase == "Failed"
    (gate,) = [node for name, node in workflow.nodes.items() if name.endswith("perf-decision")]
    assert "perf_gate stopped it: " in gate.logs[0]
    assert gate.exit_codes == [1]
    assert gate.outputs["result"] == "failed"
    aliases = cluster.dagster.resources.registry.aliases()
    assert aliases["perf-failed"] == aliases["staged"]


def test_performance_passes(cluster: Cluster, tmp_path: Path) -> None:
    workflow = cluster.workflow("performance-test-lora", tmp_path)
    lax = {"max_p95_latency": "600", "max_p95_ttft": "600", "min_throughput": "0"}
    ended = cluster.submit(workflow, **lax, max_samples="8", max_tokens="8")
    assert ended.phase == "Succeeded", workflow.nodes
    assert ended.outputs["result"] == "passed"
    aliases = cluster.dagster.resources.registry.aliases()
    assert aliases["perf-passed"] == aliases["staged"]
    assert "perf-failed" not in aliases


def test_promotion_after_both_gates_makes_it_live(cluster: Cluster, tmp_path: Path) -> None:
    staged = cluster.dagster.resources.registry.aliases()["staged"]
    workflow = cluster.workflow("promote-lora-adapter", tmp_path)
    ended = cluster.submit(workflow, source_alias="perf-passed")
    assert ended.phase == "Succeeded", workflow.nodes
    assert ended.outputs["digest"] == staged.digest
    aliases = cluster.dagster.resources.registry.aliases()
    assert aliases["live"] == staged
    assert not {"staged", "eval-passed", "perf-passed"} & aliases.keys()


def test_promotion_after_evaluation_only_makes_it_live(cluster: Cluster, tmp_path: Path) -> None:
    """Promote the same version again, with nothing live."""
    registry = cluster.dagster.resources.registry
    version = registry.aliases()["live"]
    registry.clear_alias("live")
    registry.set_alias("eval-passed", version)
    workflow = cluster.workflow("promote-lora-adapter", tmp_path)
    ended = cluster.submit(workflow, source_alias="eval-passed")
    assert ended.phase == "Succeeded", workflow.nodes
    assert ended.outputs["digest"] == version.digest
    aliases = registry.aliases()
    assert aliases["live"] == version
    assert "eval-passed" not in aliases


def test_the_pipeline_takes_a_data_version_from_nothing_to_live(
    cluster: Cluster, tmp_path: Path
) -> None:
    """With nothing live: on a busy machine, two load tests differ too much."""
    registry = cluster.dagster.resources.registry
    version = registry.aliases()["live"]
    registry.clear_alias("live")
    workflow = cluster.workflow("lora-pipeline", tmp_path)
    lax = {
        **LAX,
        "min_a_rate": "0",
        "max_c_rate": "1",
        "min_refusal_rate": "0",
        "max_p95_latency": "600",
        "max_p95_ttft": "600",
        "min_throughput": "0",
    }
    ended = cluster.submit(workflow, **lax, max_samples="8", max_tokens="8")
    assert ended.phase == "Succeeded", {n: node.logs for n, node in workflow.nodes.items()}
    assert ended.outputs["result"] == "passed"
    assert ended.outputs["digest"] == version.digest
    aliases = registry.aliases()
    assert aliases["live"] == version
    assert not {"staged", "eval-passed", "perf-passed"} & aliases.keys()
