"""The platform in its cluster wiring: every part a real server, embedded only the model server."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from lora_assets.cli.main import main
from lora_assets.resources.object_store import s3_client
from lora_assets.settings import BASE_MODEL, EMBEDDED_BASE_NAME, read_settings
from lora_assets.stack_resources import Resources, make_resources
from tests.support import cluster_parts
from tests.support.cluster_parts import Part
from tests.support.stack import free_port

BUCKET = "my-vllm-data"
DAGSTER_YAML = """
storage:
  postgres:
    postgres_url: postgresql+psycopg2://dagster@127.0.0.1:{port}/postgres
concurrency:
  pools: {{default_limit: 1, granularity: op}}
telemetry: {{enabled: false}}
"""


@dataclass(frozen=True)
class Ended:
    """How a command ended: 0 or the message with which it exited, and what it printed."""

    code: int | str
    out: str
    err: str


Run = Callable[..., Ended]


@dataclass(frozen=True)
class Cluster:
    """The parts, and the environment that tells the platform of them."""

    folder: Path
    environment: Mapping[str, str]
    s3: Part
    mlflow: Part
    prometheus: Part
    vllm: Part
    judge: Part
    postgresql: Part

    @property
    def resources(self) -> Resources:
        return make_resources(read_settings(self.environment))


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
            "BASE_MODEL": str(BASE_MODEL),
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

    def command(*arguments: str, **changes: str) -> Ended:
        # It stands for a process of its own, which finds its credentials itself.
        s3_client.cache_clear()
        for name, value in {**cluster.environment, **changes}.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr("sys.argv", ["lora-assets", *arguments])
        capfd.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        printed = capfd.readouterr()
        return Ended(ended.value.code or 0, printed.out, printed.err)

    return command
