"""The platform in its cluster wiring: every part a real server, embedded only the model server."""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from lora_assets.embedded.server.options import PACKAGED_BASE_MODEL
from lora_assets.settings import EMBEDDED_BASE_NAME, read_settings
from lora_assets.stack_resources import Resources, make_resources
from tests.support import cluster_parts
from tests.support.dagster_services import Part
from tests.support.policies import ANY_ANSWER, ANY_SPEED, ANY_TRAINING, write_policy
from tests.support.stack import free_port

BUCKET = "my-vllm-data"
DAGSTER_YAML = """
storage:
  postgres:
    postgres_url: postgresql+psycopg2://dagster@127.0.0.1:{port}/postgres
concurrency:
  pools: {{default_limit: 1, granularity: op}}
run_coordinator:
  {{module: dagster._core.run_coordinator, class: DefaultRunCoordinator}}
compute_logs:
  {{module: dagster._core.storage.noop_compute_log_manager, class: NoOpComputeLogManager}}
local_artifact_storage:
  {{module: dagster._core.storage.root, class: LocalArtifactStorage, config: {{base_dir: /tmp}}}}
telemetry: {{enabled: false}}
"""
"""Runs are launched at once: no daemon is needed. A container writes nowhere but in /tmp."""


@dataclass(frozen=True)
class Cluster:
    """The parts, and the environment that tells the platform of them."""

    folder: Path
    environment: Mapping[str, str]
    postgresql: Part
    s3: Part
    mlflow: Part
    prometheus: Part
    judge: Part
    vllm: Part

    @property
    def resources(self) -> Resources:
        return make_resources(read_settings(self.environment))


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Everything started, ready, and stopped in the end."""
    folder = tmp_path_factory.mktemp("cluster")
    for made in (f"s3/{BUCKET}", "dagster", "adapters"):
        (folder / made).mkdir(parents=True)
    # A container writes them as another user.
    (folder / "adapters").chmod(0o777)
    vllm_port = free_port()
    with ExitStack() as stack:
        postgresql = stack.enter_context(cluster_parts.postgresql())
        yaml = DAGSTER_YAML.format(port=postgresql.port)
        (folder / "dagster" / "dagster.yaml").write_text(yaml)
        s3, mlflow = cluster_parts.s3_server(folder / "s3"), cluster_parts.mlflow_server(folder)
        prometheus = cluster_parts.prometheus_server(folder, vllm_port)
        judge = cluster_parts.judge_server(folder / "judge.log")
        environment = {
            **{"LORA_ASSETS_STACK": "cluster", "LORA_ASSETS_HOME": str(folder / "home")},
            **{"DAGSTER_HOME": str(folder / "dagster"), "ADAPTERS_DIR": str(folder / "adapters")},
            **{"S3_DATA_BUCKET": f"s3://{BUCKET}", "AWS_ENDPOINT_URL_S3": s3.url},
            "AWS_ACCESS_KEY_ID": cluster_parts.S3_KEY,
            "AWS_SECRET_ACCESS_KEY": cluster_parts.S3_SECRET,
            **{"PROMETHEUS_URL": prometheus.url, "PROMETHEUS_SELECTOR": 'job="vllm"'},
            **dict.fromkeys(("VLLM_URL", "VLLM_REPLICAS"), f"http://127.0.0.1:{vllm_port}"),
            **{"MLFLOW_TRACKING_URI": mlflow.url, "JUDGE_URL": judge.url},
            **{"BASE_MODEL": str(PACKAGED_BASE_MODEL), "BASE_MODEL_NAME": EMBEDDED_BASE_NAME},
            **write_policy(folder, ANY_TRAINING, ANY_ANSWER, ANY_SPEED),
        }
        vllm = cluster_parts.model_server(environment, vllm_port, folder / "vllm.log")
        # The last one restores its adapters from the registry before it listens.
        parts = (s3, mlflow, prometheus, judge, vllm)
        for part in parts:
            stack.enter_context(part.running())
        yield Cluster(folder, environment, postgresql, *parts)
