"""Dagster wired as its Helm chart wires it, on a double of the cluster, and an embedded server.

Code location, webserver and daemon are processes of their own; runs and steps are Jobs of the
double, launched by the real K8sRunLauncher and k8s_job_executor.
"""

import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg
import httpx
import pytest
from kubernetes.client import ApiClient, CoreV1Api
from kubernetes.config import new_client_from_config

from lora_assets.embedded.data_set.versions import build
from lora_assets.environment import Resources, make_resources, read_settings
from lora_assets.kubernetes.step_pods import EVALUATION_CLAIM, TRAINING_CLAIM
from tests.support.dagster_services import (
    LOCATION,
    instance_settings,
    serving_dagster,
    until,
)
from tests.support.doubles.kubernetes_api import Job, Jobs, KubernetesApi, Node
from tests.support.stack import free_port, serving, stack_environment

DATA_VERSION = "1"
REGISTRY = "registry.test/"
TRAINING_IMAGE = f"{REGISTRY}vllm-training-tools:1"
DEPLOYMENT_IMAGE = f"{REGISTRY}vllm-deployment-tools:1"
CHANGED_STEP = "live_deployment"
CHANGED_RESOURCES: Mapping[str, Mapping[str, str]] = {
    "requests": {"cpu": "150m"},
    "limits": {"memory": "1200Mi"},
}
"""What this deployment gives one step in place of what the table says."""

LAUNCH = """
mutation($execution: ExecutionParams!) {
  launchRun(executionParams: $execution) {
    __typename
    ... on LaunchRunSuccess { run { runId } }
    ... on RunConfigValidationInvalid { errors { message } }
    ... on PythonError { message }
  }
}
"""


@dataclass(frozen=True)
class Cluster:
    """What a test needs of the whole."""

    jobs: Jobs
    claims: Mapping[str, Path]
    instance: dg.DagsterInstance
    core: CoreV1Api
    dagster_url: str
    resources: Resources

    def launch(self, job: str, ops: Mapping[str, Mapping[str, Any]]) -> str:
        """Launch a run on the data version, as the UI does; returns its id."""
        execution = {
            "selector": {
                "repositoryLocationName": LOCATION,
                "repositoryName": "__repository__",
                "jobName": job,
            },
            "runConfigData": {"ops": {op: {"config": config} for op, config in ops.items()}},
            "executionMetadata": {"tags": [{"key": "dagster/partition", "value": DATA_VERSION}]},
        }
        reply = httpx.post(
            f"{self.dagster_url}/graphql",
            json={"query": LAUNCH, "variables": {"execution": execution}},
            timeout=60,
        )
        launched = reply.json()["data"]["launchRun"]
        assert launched["__typename"] == "LaunchRunSuccess", launched
        return str(launched["run"]["runId"])

    def of_step(self, run_id: str, step: str) -> Sequence[Job]:
        """The Jobs of a step, one for each attempt."""
        labels = {"dagster/run-id": run_id, "dagster/op": step}
        return [job for job in self.jobs.made if labels.items() <= job.labels.items()]

    def workers(self, run_id: str) -> Sequence[Job]:
        """The Jobs of the run itself: the first worker and those that resumed the run."""
        return [job for job in self.jobs.made if job.name.startswith(f"dagster-run-{run_id}")]

    def await_run(self, run_id: str, timeout_s: float) -> dg.DagsterRun:
        """The run when it has ended."""

        def ended() -> dg.DagsterRun | None:
            run = self.instance.get_run_by_id(run_id)
            return run if run and run.is_finished else None

        run: dg.DagsterRun = until(ended, f"the end of run {run_id}", timeout_s)
        return run


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """The double with everything on it that has to be there before the first run."""
    home = tmp_path_factory.mktemp("cluster")
    build(DATA_VERSION, ["kinesis"], home / "bucket")
    port = free_port()
    server = stack_environment(home / "vllm", port)
    location = {
        **server,
        "LORA_ASSETS_HOME": "/var/lib/lora-assets",
        "LORA_ASSETS_EXECUTOR": "k8s_job",
        "LORA_ASSETS_STEP_PODS": json.dumps(
            {
                "adapter": {"container_config": {"image": TRAINING_IMAGE}},
                CHANGED_STEP: {"container_config": {"resources": CHANGED_RESOURCES}},
            }
        ),
        "MLFLOW_TRACKING_URI": f"sqlite:///{home / 'mlflow.db'}",
        "MLFLOW_ARTIFACTS": (home / "mlflow-artifacts").as_uri(),
        "S3_DATA_BUCKET": (home / "bucket").as_uri(),
        "ADAPTERS_DIR": str(home / "vllm" / "adapters"),
    }
    claims = {name: home / "claims" / name for name in (TRAINING_CLAIM, EVALUATION_CLAIM)}
    for folder in claims.values():
        folder.mkdir(parents=True)
    of_image = {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": os.environ.get("PYTHONPATH", ""),
    }
    node = Node(
        folder=home / "pods",
        images=(TRAINING_IMAGE, DEPLOYMENT_IMAGE),
        environment={**of_image, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"},
        claims=claims,
        secrets={"hf-token": {"token": "no-token"}},
    )
    api = KubernetesApi(jobs=Jobs(node))
    resources = make_resources(read_settings(location))
    assert resources.registry.aliases() == {}  # MLflow makes its tables now, not in two pods.
    with ExitStack() as stack:
        kubeconfig = stack.enter_context(api.serving(home))
        stack.enter_context(serving(server))
        dagster_home = home / "dagster"
        dagster_home.mkdir()
        (dagster_home / "dagster.yaml").write_text(
            json.dumps(instance_settings(kubeconfig, dagster_home))
        )
        instance = stack.enter_context(dg.DagsterInstance.from_config(str(dagster_home)))
        # This makes Dagster's tables, which two processes at once can't.
        instance.add_dynamic_partitions("data_version", [DATA_VERSION])
        url = stack.enter_context(serving_dagster(dagster_home, location, DEPLOYMENT_IMAGE))
        client: ApiClient = new_client_from_config(str(kubeconfig))
        assert api.jobs
        yield Cluster(api.jobs, claims, instance, CoreV1Api(client), url, resources)
