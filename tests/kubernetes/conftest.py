"""Dagster wired as its Helm chart wires it, on a double of the cluster, and an embedded server.

Code location, webserver and daemon are processes of their own; runs and steps are Jobs of the
double, launched by the real K8sRunLauncher and k8s_job_executor.
"""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import Any

import dagster as dg
import httpx
import pytest
import yaml
from kubernetes.client import ApiClient, CoreV1Api
from kubernetes.config import new_client_from_config

import lora_assets.cli
from lora_assets.assets.step_pods import EVALUATION_CLAIM, TRAINING_CLAIM
from lora_assets.datasets.versions import build
from lora_assets.environment import Resources, make_resources, read_settings
from tests.conftest import free_port, serving, stack_environment
from tests.doubles.kubernetes_api import Job, Jobs, KubernetesApi, Node

NAMESPACE = "dagster"
LOCATION = "lora-assets"
DATA_VERSION = "1"
REGISTRY = "registry.test/"
TRAINING_IMAGE = f"{REGISTRY}vllm-training-tools:1"
DEPLOYMENT_IMAGE = f"{REGISTRY}vllm-deployment-tools:1"

PATIENCE_S = 600
"""For one thing to happen, also on a machine that is busy with others."""

LOADED = "{ repositoriesOrError { ... on RepositoryConnection { nodes { name } } } }"

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


def until(condition: Callable[[], Any], what: str, timeout_s: float) -> Any:
    """What `condition` gives as soon as that is something; asked for again and again."""
    never = Event()
    for _ in range(int(timeout_s / 0.2)):
        found = condition()
        if found:
            return found
        never.wait(0.2)
    raise AssertionError(f"waited for {what} in vain")


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
            {"adapter": {"container_config": {"image": TRAINING_IMAGE}}}
        ),
        "MLFLOW_TRACKING_URI": f"sqlite:///{home / 'mlflow.db'}",
        "MLFLOW_ARTIFACTS": (home / "mlflow-artifacts").as_uri(),
        "S3_DATA_BUCKET": (home / "bucket").as_uri(),
        "ADAPTERS_DIR": str(home / "vllm" / "adapters"),
    }
    claims = {name: home / "claims" / name for name in (TRAINING_CLAIM, EVALUATION_CLAIM)}
    for folder in claims.values():
        folder.mkdir(parents=True)
    of_image = {name: os.environ[name] for name in ("PATH", "PYTHONPATH") if name in os.environ}
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
        url = stack.enter_context(dagster_services(dagster_home, location))
        client: ApiClient = new_client_from_config(str(kubeconfig))
        assert api.jobs
        yield Cluster(api.jobs, claims, instance, CoreV1Api(client), url, resources)


def instance_settings(kubeconfig: Path, dagster_home: Path) -> Mapping[str, Any]:
    """The project's own settings, with the launcher and with less time between looks."""
    own = Path(lora_assets.cli.__path__[0]) / "dagster.yaml"
    settings: dict[str, Any] = yaml.safe_load(own.read_text())
    settings["run_monitoring"] |= {"poll_interval_seconds": 3, "max_resume_run_attempts": 3}
    settings["run_coordinator"] = {
        "module": "dagster",
        "class": "QueuedRunCoordinator",
        "config": {"dequeue_interval_seconds": 1},
    }
    settings["run_launcher"] = {
        "module": "dagster_k8s",
        "class": "K8sRunLauncher",
        "config": {
            "load_incluster_config": False,
            "kubeconfig_file": str(kubeconfig),
            "job_namespace": NAMESPACE,
            "service_account_name": "dagster",
            "instance_config_map": "dagster-instance",
            "dagster_home": str(dagster_home),
        },
    }
    return settings


@contextmanager
def dagster_services(dagster_home: Path, location: Mapping[str, str]) -> Iterator[str]:
    """Code location, daemon and webserver, whose URL is given when it answers."""
    grpc, web = free_port(), free_port()
    workspace = dagster_home / "workspace.yaml"
    servers = [{"grpc_server": {"host": "127.0.0.1", "port": grpc, "location_name": LOCATION}}]
    workspace.write_text(json.dumps({"load_from": servers}))
    environment = {**os.environ, "DAGSTER_HOME": str(dagster_home)}
    # As the chart does it: the location's environment goes with its runs.
    context = {"k8s": {"env_vars": [f"{name}={value}" for name, value in location.items()]}}
    served = ("-m", "lora_assets.definitions", "-h", "127.0.0.1", "-p", str(grpc))
    bin_folder = Path(sys.executable).parent
    processes: list[subprocess.Popen[bytes]] = []

    def start(program: str, *arguments: str, **more: str) -> None:
        command = [str(bin_folder / program), *arguments]
        processes.append(subprocess.Popen(command, env={**environment, **more}))

    def listens() -> bool:
        assert all(process.poll() is None for process in processes), "a part of Dagster ended"
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", grpc)) == 0

    url = f"http://127.0.0.1:{web}"

    def loaded() -> bool:
        assert all(process.poll() is None for process in processes), "a part of Dagster ended"
        try:
            reply = httpx.post(f"{url}/graphql", json={"query": LOADED}, timeout=60)
        except httpx.ConnectError:
            return False
        return bool(reply.json()["data"]["repositoriesOrError"].get("nodes"))

    try:
        image = {"DAGSTER_CURRENT_IMAGE": DEPLOYMENT_IMAGE}
        container_context = ("--container-context", json.dumps(context))
        start("dagster", "api", "grpc", *served, *container_context, **location, **image)
        until(listens, "the code location", PATIENCE_S)
        start("dagster-daemon", "run", "-w", str(workspace))
        start("dagster-webserver", "-w", str(workspace), "-h", "127.0.0.1", "-p", str(web))
        until(loaded, "Dagster's webserver", PATIENCE_S)
        yield url
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.wait(30)
