"""Fixtures of the tests here."""

import json
import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import dagster as dg
import pytest
from kubernetes.client import CoreV1Api
from kubernetes.config import new_client_from_config

from lora_assets.embedded.data_set.versions import build
from lora_assets.remote.webserver import DagsterWebserver
from lora_assets.settings import read_settings
from lora_assets.stack_resources import make_resources
from tests.support.dagster_services import instance_settings, serving_dagster
from tests.support.doubles.kubernetes_api import Jobs, KubernetesApi, Node
from tests.support.kubernetes_cluster import (
    CHANGED_RESOURCES,
    CHANGED_STEP,
    DATA_VERSION,
    DEPLOYMENT_IMAGE,
    EVALUATION_CLAIM,
    TRAINING_CLAIM,
    TRAINING_IMAGE,
    Cluster,
)
from tests.support.stack import free_port, serving, stack_environment


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
    jobs = Jobs(node)
    resources = make_resources(read_settings(location))
    assert resources.registry.aliases() == {}  # MLflow makes its tables now, not in two pods.
    with ExitStack() as stack:
        kubeconfig = stack.enter_context(KubernetesApi(jobs=jobs).serving(home))
        model_server = stack.enter_context(serving(server))
        dagster_home = home / "dagster"
        dagster_home.mkdir()
        (dagster_home / "dagster.yaml").write_text(
            json.dumps(instance_settings(kubeconfig, dagster_home))
        )
        instance = stack.enter_context(dg.DagsterInstance.from_config(str(dagster_home)))
        # This makes Dagster's tables, which two processes at once can't.
        instance.add_dynamic_partitions("data_version", [DATA_VERSION])
        services = stack.enter_context(serving_dagster(dagster_home, location, DEPLOYMENT_IMAGE))
        core = CoreV1Api(new_client_from_config(str(kubeconfig)))
        webserver = DagsterWebserver(services.url, services.url)
        yield Cluster(jobs, claims, instance, core, webserver, resources, model_server)
