"""Dagster wired as its Helm chart wires it, on a double of the cluster, and an embedded server.

Code location, webserver and daemon are processes of their own; runs and steps are Jobs of the
double, launched by the real K8sRunLauncher and k8s_job_executor.
"""

import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg
from kubernetes.client import CoreV1Api

from lora_assets.remote.webserver import DagsterWebserver
from lora_assets.stack_resources import Resources
from tests.support.dagster_services import until
from tests.support.doubles.kubernetes_api import Job, Jobs

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
