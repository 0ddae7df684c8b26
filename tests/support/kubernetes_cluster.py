"""Dagster wired as its Helm chart wires it, on a double of the cluster, and an embedded server.

Code location, webserver and daemon are processes of their own; runs and steps are Jobs of the
double, launched by the real K8sRunLauncher and k8s_job_executor.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg
from kubernetes.client import CoreV1Api
from kubernetes.config import new_client_from_config

from lora_assets.embedded.data_set.versions import build
from lora_assets.remote.webserver import DagsterWebserver
from lora_assets.settings import read_settings
from lora_assets.stack_resources import Resources, make_resources
from tests.support.dagster_services import instance_settings, serving_dagster, until
from tests.support.doubles.kubernetes_api import Job, Jobs, KubernetesApi, Node
from tests.support.policies import ANY_ANSWER, ANY_SPEED, ANY_TRAINING, write_policy
from tests.support.stack import free_port, serving, stack_environment

DATA_VERSION = "1"
OF_DATA = {"dagster/partition": DATA_VERSION}
HOME = "/var/lib/lora-assets"
"""Where a step keeps what must outlive its pod; LORA_ASSETS_HOME of the steps with a claim."""
TRAINING_CLAIM, EVALUATION_CLAIM = "lora-assets-training", "lora-assets-evaluation"
REGISTRY = "registry.test/"
TRAINING_IMAGE = f"{REGISTRY}vllm-training-tools:1"
DEPLOYMENT_IMAGE = f"{REGISTRY}vllm-deployment-tools:1"
CHANGED_STEP = "live_deployment"
CHANGED_RESOURCES: Mapping[str, Mapping[str, str]] = {
    "requests": {"cpu": "150m"},
    "limits": {"memory": "1200Mi"},
}
"""What this deployment gives one step in place of what the table says."""


@dataclass(frozen=True)
class Cluster:
    """What a test needs of the whole."""

    jobs: Jobs
    claims: Mapping[str, Path]
    instance: dg.DagsterInstance
    core: CoreV1Api
    dagster: DagsterWebserver
    resources: Resources
    server: subprocess.Popen[bytes]
    environment: Mapping[str, str]
    """Of the code location, its runs and their steps."""

    def launch(self, job: str, ops: Mapping[str, Mapping[str, Any]]) -> str:
        """Launch a run on the data version, as the UI does; returns its id."""
        known = {run.run_id for run in self.dagster.runs(OF_DATA)}
        config = {"ops": {op: {"config": config} for op, config in ops.items()}}
        self.dagster.launch(self.dagster.locate(job), job, None, config, OF_DATA)
        (launched,) = {run.run_id for run in self.dagster.runs(OF_DATA)} - known
        return launched

    def of_step(self, run_id: str, step: str) -> Sequence[Job]:
        """The Jobs of a step, one for each attempt."""
        labels = {"dagster/run-id": run_id, "dagster/op": step}
        return [job for job in self.jobs.made if labels.items() <= job.labels.items()]

    def workers(self, run_id: str) -> Sequence[Job]:
        """The Jobs of the run itself: the first worker and those that resumed the run."""
        return [job for job in self.jobs.made if job.name.startswith(f"dagster-run-{run_id}")]

    def await_run(self, run_id: str) -> dg.DagsterRun:
        """The run when it has ended."""

        def ended() -> dg.DagsterRun | None:
            run = self.instance.get_run_by_id(run_id)
            return run if run and run.is_finished else None

        run: dg.DagsterRun = until(ended, f"the end of run {run_id}")
        return run


@contextmanager
def serving_cluster(home: Path, run_resources: Mapping[str, Any]) -> Iterator[Cluster]:
    """The double with all that has to be there before the first run; runs get `run_resources`."""
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
        **write_policy(home, ANY_TRAINING, ANY_ANSWER, ANY_SPEED),
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
    jobs = Jobs(node)
    resources = make_resources(read_settings(location))
    assert resources.registry.aliases() == {}  # MLflow makes its tables now, not in two pods.
    with ExitStack() as stack:
        kubeconfig = stack.enter_context(KubernetesApi(jobs=jobs).serving(home))
        model_server = stack.enter_context(serving(server))
        dagster_home = home / "dagster"
        dagster_home.mkdir()
        (dagster_home / "dagster.yaml").write_text(
            json.dumps(instance_settings(kubeconfig, dagster_home, run_resources))
        )
        instance = stack.enter_context(dg.DagsterInstance.from_config(str(dagster_home)))
        # This makes Dagster's tables, which two processes at once can't.
        instance.add_dynamic_partitions("data_version", [DATA_VERSION])
        services = stack.enter_context(serving_dagster(dagster_home, location, DEPLOYMENT_IMAGE))
        core = CoreV1Api(new_client_from_config(str(kubeconfig)))
        webserver = DagsterWebserver(services.url, services.url)
        yield Cluster(jobs, claims, instance, core, webserver, resources, model_server, location)
