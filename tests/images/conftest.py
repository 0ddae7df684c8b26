"""Fixtures of the tests here."""

import os
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from lora_assets.embedded.server.options import PACKAGED_BASE_MODEL
from lora_assets.settings import EMBEDDED_BASE_NAME
from tests.support import cluster_parts
from tests.support.cluster_parts import Part
from tests.support.images import Image, Neighbours
from tests.support.stack import free_port

BUCKET = "my-vllm-data"
DAGSTER_YAML = """
storage:
  postgres:
    postgres_url: postgresql+psycopg2://dagster@127.0.0.1:{port}/postgres
run_coordinator:
  {{module: dagster._core.run_coordinator, class: DefaultRunCoordinator}}
compute_logs:
  {{module: dagster._core.storage.noop_compute_log_manager, class: NoOpComputeLogManager}}
local_artifact_storage:
  {{module: dagster._core.storage.root, class: LocalArtifactStorage, config: {{base_dir: /tmp}}}}
telemetry: {{enabled: false}}
"""
"""Runs are launched at once: no daemon is needed."""
PACKAGE = "/opt/lora-assets/lib/python3.11/site-packages/lora_assets"


@pytest.fixture(scope="session")
def deployment() -> Image:
    return Image(f"vllm-deployment-tools:{os.environ['VERSION']}")


@pytest.fixture(scope="session")
def training() -> Image:
    return Image(f"vllm-training-tools:{os.environ['VERSION']}")


@pytest.fixture(scope="session")
def neighbours(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Neighbours]:
    """S3, MLflow and a model server as real processes on this machine."""
    folder = tmp_path_factory.mktemp("images")
    bucket, adapters, dagster_home = folder / "s3" / BUCKET, folder / "adapters", folder / "dagster"
    for made in (bucket, adapters, dagster_home):
        made.mkdir(parents=True)
    adapters.chmod(0o777)
    port = free_port()
    with ExitStack() as stack:
        s3, mlflow = cluster_parts.s3_server(folder / "s3"), cluster_parts.mlflow_server(folder)
        postgresql = stack.enter_context(cluster_parts.postgresql())
        (dagster_home / "dagster.yaml").write_text(DAGSTER_YAML.format(port=postgresql.port))
        everywhere = {
            "LORA_ASSETS_STACK": "cluster",
            "MLFLOW_TRACKING_URI": mlflow.url,
            "S3_DATA_BUCKET": f"s3://{BUCKET}",
            "AWS_ENDPOINT_URL_S3": s3.url,
            "AWS_ACCESS_KEY_ID": cluster_parts.S3_KEY,
            "AWS_SECRET_ACCESS_KEY": cluster_parts.S3_SECRET,
            "VLLM_URL": f"http://127.0.0.1:{port}",
            "VLLM_REPLICAS": f"http://127.0.0.1:{port}",
            "ADAPTERS_DIR": str(adapters),
            "BASE_MODEL_NAME": EMBEDDED_BASE_NAME,
        }
        here = {"LORA_ASSETS_HOME": str(folder), "BASE_MODEL": str(PACKAGED_BASE_MODEL)}
        vllm = cluster_parts.model_server({**everywhere, **here}, port, folder / "vllm.log")
        for part in (postgresql, s3, mlflow, vllm):
            stack.callback(part.kill)
            part.start()
            part.await_ready()
        inside = {**everywhere, "BASE_MODEL": f"{PACKAGE}/base_model"}
        yield Neighbours(bucket, adapters, dagster_home, inside)


@pytest.fixture(scope="session")
def dagster_url(deployment: Image, neighbours: Neighbours) -> Iterator[str]:
    """Dagster's webserver, over a code location in a container of the deployment image."""
    port, code_port = free_port(), free_port()
    environment = {"DAGSTER_HOME": str(neighbours.dagster_home)}
    code = ["dagster", "api", "grpc", "-m", "lora_assets.definitions"]
    code += ["--host", "127.0.0.1", "--port", str(code_port)]
    workspace = f"load_from: [{{grpc_server: {{host: 127.0.0.1, port: {code_port}}}}}]"
    (neighbours.dagster_home / "workspace.yaml").write_text(workspace)
    command = [sys.executable, "-m", "dagster_webserver", "--host", "127.0.0.1"]
    command += ["--port", str(port), "-w", str(neighbours.dagster_home / "workspace.yaml")]
    log = neighbours.dagster_home / "webserver.log"
    web = Part("Dagster", port, command, cluster_parts.answers("/server_info"), log, environment)
    with deployment.running(*code, **neighbours.options) as container, ExitStack() as stack:
        while not cluster_parts.listens(f"http://127.0.0.1:{code_port}"):
            assert container.poll() is None, "the code location ended before it listened"
            time.sleep(0.1)
        stack.callback(web.kill)
        web.restart()
        yield web.url
