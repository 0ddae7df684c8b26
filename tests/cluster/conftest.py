"""The platform in its cluster wiring: every part a real server, embedded only the model server."""

from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from lora_assets.embedded.server.options import PACKAGED_BASE_MODEL
from lora_assets.resources.object_store import s3_client
from lora_assets.settings import EMBEDDED_BASE_NAME
from tests.support import cluster_parts
from tests.support.cluster_stages import BUCKET, Cluster, Run
from tests.support.commands import Ended, command
from tests.support.stack import free_port

DAGSTER_YAML = """
storage:
  postgres:
    postgres_url: postgresql+psycopg2://dagster@127.0.0.1:{port}/postgres
concurrency:
  pools: {{default_limit: 1, granularity: op}}
telemetry: {{enabled: false}}
"""


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Everything started, ready, and stopped in the end."""
    folder = tmp_path_factory.mktemp("cluster")
    (folder / "s3" / BUCKET).mkdir(parents=True)
    (folder / "dagster").mkdir()
    vllm_port = free_port()
    with ExitStack() as stack:
        s3, mlflow = cluster_parts.s3_server(folder / "s3"), cluster_parts.mlflow_server(folder)
        judge = cluster_parts.judge_server(folder / "judge.log")
        postgresql = stack.enter_context(cluster_parts.postgresql())
        prometheus = cluster_parts.prometheus_server(folder, vllm_port)
        yaml = DAGSTER_YAML.format(port=postgresql.port)
        (folder / "dagster" / "dagster.yaml").write_text(yaml)
        environment = {
            "LORA_ASSETS_STACK": "cluster",
            "LORA_ASSETS_HOME": str(folder / "home"),
            "DAGSTER_HOME": str(folder / "dagster"),
            "MLFLOW_TRACKING_URI": mlflow.url,
            "S3_DATA_BUCKET": f"s3://{BUCKET}",
            "AWS_ENDPOINT_URL_S3": s3.url,
            "AWS_ACCESS_KEY_ID": cluster_parts.S3_KEY,
            "AWS_SECRET_ACCESS_KEY": cluster_parts.S3_SECRET,
            "PROMETHEUS_URL": prometheus.url,
            "VLLM_URL": f"http://127.0.0.1:{vllm_port}",
            "VLLM_REPLICAS": f"http://127.0.0.1:{vllm_port}",
            "JUDGE_URL": judge.url,
            "ADAPTERS_DIR": str(folder / "adapters"),
            "BASE_MODEL": str(PACKAGED_BASE_MODEL),
            "BASE_MODEL_NAME": EMBEDDED_BASE_NAME,
        }
        vllm = cluster_parts.model_server(environment, vllm_port, folder / "vllm.log")
        cluster = Cluster(folder, environment, s3, mlflow, prometheus, vllm, judge, postgresql)
        for part in (postgresql, s3, mlflow, prometheus, judge):
            stack.callback(part.kill)
            part.start()
        mlflow.await_ready()
        # It restores its adapters from the registry before it listens.
        stack.callback(vllm.kill)
        vllm.start()
        for part in (postgresql, s3, prometheus, judge, vllm):
            part.await_ready()
        yield cluster


@pytest.fixture(autouse=True)
def _told_of_the_cluster(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also what reads the environment itself is told, as boto3 is of its keys."""
    for name, value in cluster.environment.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def run(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Run:
    """Run a command in the cluster's environment, with what `changes` in it."""

    def ended(*arguments: str, **changes: str) -> Ended:
        # It stands for a process of its own, which finds its credentials itself.
        s3_client.cache_clear()
        return command(arguments, {**cluster.environment, **changes}, monkeypatch, capfd)

    return ended
