"""Faults on the trial cluster, each done for real. `make trial` comes first."""

import json
import os
import subprocess
import time
from pathlib import Path

import pytest

from lora_assets.serving.pod_exec import pod_folder
from tests.serving.test_pod_exec import ADAPTERS, make_adapter
from tests.support.dagster_services import until
from tests.support.trial_cluster import (
    ARGO,
    KUBECTL,
    Answers,
    kubectl,
    replicas,
    rolled_out,
    run,
    training,
    under_load,
)

pytestmark = pytest.mark.e2e

NOW = ("--force", "--grace-period=0")
ASK = """
import json, os, urllib.request as http
body = {"model": "aws-rag-qa-live", "prompt": "?", "max_tokens": 1, "temperature": 0}
asked = http.Request("http://127.0.0.1:8000/v1/completions", json.dumps(body).encode())
asked.add_header("Authorization", "Bearer " + os.environ["VLLM_API_KEY"])
asked.add_header("Content-Type", "application/json")
print(json.load(http.urlopen(asked, timeout=60))["model"])
"""
FREEZE = Path(__file__).with_name("frozen_api.yaml")


def live_of(pod: str) -> str:
    """The adapter by which this replica answers for live."""
    words = ("-n", "ml-models", "exec", pod, "-c", "vllm", "--", "python", "-c", ASK)
    return kubectl(*words).strip()


@pytest.fixture(scope="module", autouse=True)
def live() -> str:
    """The adapter that is live, on every replica."""
    if "KUBECONFIG" not in os.environ:
        pytest.fail("KUBECONFIG is not set: it names the cluster of 'make trial'", pytrace=False)
    rolled_out("ml-models", "vllm")
    (one,) = {live_of(pod) for pod in replicas()}
    return one


def none_failed(answers: Answers, live: str) -> None:
    assert answers.failures == []
    assert answers.models.keys() == {live}
    assert answers.models[live] > 20


def test_a_lost_training_pod_is_replaced_and_the_workflow_succeeds() -> None:
    trained = training()
    kubectl("-n", "dagster", "delete", "pod", trained.pod, *NOW)
    until(lambda: trained.pods("step_worker") - {trained.pod}, "another training pod", 180)
    assert trained.phase() == "Succeeded"


def test_a_lost_run_worker_is_replaced_and_the_training_goes_on() -> None:
    trained = training()
    (worker,) = trained.pods("run_worker")
    kubectl("-n", "dagster", "delete", "pod", worker, *NOW)
    until(lambda: trained.pods("run_worker") - {worker}, "another run worker", 300)
    assert trained.pods("step_worker") <= {trained.pod}
    assert trained.phase() == "Succeeded"


def test_a_step_follows_its_run_again_when_the_webserver_is_back() -> None:
    trained = training()
    scale = ("-n", "dagster", "scale", "deploy/dagster-webserver")
    kubectl(*scale, "--replicas=0")
    try:
        # Long enough for a step to give up once, and for its next attempt.
        time.sleep(75)
    finally:
        kubectl(*scale, "--replicas=1")
    assert trained.phase() == "Succeeded"
    nodes = trained.status["nodes"].values()
    failed = [node for node in nodes if node["type"] == "Pod" and node["phase"] == "Failed"]
    assert {node["outputs"]["exitCode"] for node in failed} == {"75"}
    (step,) = (n for n in nodes if n["type"] == "Retry" and n["displayName"].startswith("train"))
    given = {each["name"]: each.get("value") for each in step["outputs"]["parameters"]}
    assert given["run-id"] == trained.run_id


def test_a_training_ends_well_although_the_api_server_stood_still() -> None:
    trained = training()
    kubectl("apply", "-f", str(FREEZE))
    read = ("-n", "client", "get", "pod", "frozen-api", "-o", "json", "--request-timeout", "10s")

    def ended() -> int | None:
        got = subprocess.run([*KUBECTL, *read], capture_output=True, text=True, check=False)
        if got.returncode:
            return None
        for container in json.loads(got.stdout)["status"].get("containerStatuses", ()):
            if "terminated" in container["state"]:
                return 1 + int(container["state"]["terminated"]["exitCode"])
        return None

    try:
        code = until(ended, "the API server", 600) - 1
    finally:
        kubectl("-n", "client", "delete", "pod", "frozen-api", *NOW)
    if code == 3:
        pytest.skip("this cluster's nodes show no process kube-apiserver, as those of k3s")
    assert code == 0
    assert trained.phase() == "Succeeded"


def test_a_stopped_workflow_leaves_no_pod_behind() -> None:
    trained = training()
    run([*ARGO, "-n", "ml-models", "stop", trained.workflow])
    until(
        lambda: not trained.pods("step_worker") | trained.pods("run_worker"),
        "the end of the training's pods",
        180,
    )
    assert trained.phase() == "Failed"
    nodes = trained.status["nodes"].values()
    (handler,) = (node for node in nodes if node["displayName"].endswith(".onExit"))
    assert handler["phase"] == "Succeeded"


def test_a_rolling_restart_fails_no_request(live: str) -> None:
    before = replicas()
    with under_load() as answers:
        kubectl("-n", "ml-models", "rollout", "restart", "deploy/vllm")
        rolled_out("ml-models", "vllm")
    none_failed(answers, live)
    assert not before & replicas()
    assert {live_of(pod) for pod in replicas()} == {live}


def test_replicas_that_are_deleted_or_added_fail_no_request(live: str) -> None:
    scale = ("-n", "ml-models", "scale", "deploy/vllm")
    try:
        with under_load() as answers:
            for how in ((), NOW):
                kubectl("-n", "ml-models", "delete", "pod", min(replicas()), *how)
                until(lambda: len(replicas()) == 2, "two replicas", 300)
                rolled_out("ml-models", "vllm")
            kubectl(*scale, "--replicas=3")
            rolled_out("ml-models", "vllm")
        none_failed(answers, live)
        assert [live_of(pod) for pod in replicas()] == [live] * 3
    finally:
        kubectl(*scale, "--replicas=2")
        rolled_out("ml-models", "vllm")


def test_an_adapter_of_357_mb_arrives_whole_in_a_pod(tmp_path: Path) -> None:
    source, digest = make_adapter(tmp_path / "large", 0, values=357_000_000 // 4)
    folder = pod_folder(ADAPTERS, "ml-models", min(replicas()), "vllm")
    before = folder.contents()["digests"]
    started = time.monotonic()
    try:
        folder.place(source, digest)
        took = time.monotonic() - started
        print(f"357 MB in {took:.0f} s: {357 / took:.0f} MB/s")
        # The pod takes each digest from what lies there.
        assert folder.contents()["digests"] == {**before, digest: digest}
    finally:
        folder.prune([*before])
    assert folder.contents()["digests"] == before
