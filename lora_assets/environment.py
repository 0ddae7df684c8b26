"""Which stack to run on: the settings that the environment gives, and the resources they make."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from lora_assets.records import Record
from lora_assets.resources.data_bucket import DataBucket
from lora_assets.resources.fleet import CANDIDATE_SLOT, LIVE_SLOT, Fleet
from lora_assets.resources.judge import Judge
from lora_assets.resources.record_io import RecordIOManager
from lora_assets.resources.registry import Registry
from lora_assets.resources.server_metrics import ServerMetrics
from lora_assets.resources.tracking import Tracking
from lora_assets.resources.trainer import Trainer
from lora_assets.resources.work_folder import WorkFolder

BASE_MODEL = Path(__file__).parent / "base_model"
EMBEDDED_BASE_NAME = "embedded-base"
CLUSTER_BASE_MODEL = "mistralai/Mistral-7B-v0.1"


class Settings(Record):
    """Where everything is. Embedded: all of it under `home`; cluster: the specification's URLs."""

    home: Path
    dagster_home: Path
    embedded: bool
    model_name: str
    mlflow_tracking_uri: str
    mlflow_artifacts: str
    s3_data_bucket: str
    s3_endpoint_url: str
    vllm_url: str
    vllm_api_key: str
    replica_urls: tuple[str, ...]
    adapters_dir: Path
    vllm_python: str
    vllm_max_lora_rank: int
    vllm_service: str
    vllm_pod_selector: str
    vllm_container: str
    live_slot: str
    candidate_slot: str
    judge_url: str
    judge_model: str
    judge_api_key: str
    prometheus_url: str
    base_model: str
    base_model_name: str

    @property
    def dagster_is_ours(self) -> bool:
        """Whether Dagster's folder, with its dagster.yaml, is kept by us under `home`."""
        return self.dagster_home == self.home / "dagster"


def read_settings(environ: Mapping[str, str] = os.environ) -> Settings:
    """The settings of LORA_ASSETS_STACK (embedded or cluster), each overridable by its variable.

    A setting's variable is its name in capitals, as in VLLM_URL or MLFLOW_TRACKING_URI;
    LORA_ASSETS_HOME is the folder for everything that is kept here. In the cluster,
    DAGSTER_HOME holds the deployment's own dagster.yaml, which is taken as it is.
    """
    home = Path(environ.get("LORA_ASSETS_HOME", ".lora-assets")).absolute()
    embedded = environ.get("LORA_ASSETS_STACK", "embedded") != "cluster"
    defaults = _embedded(home) if embedded else _cluster()
    if embedded and environ.get("VLLM_PYTHON"):
        # vLLM has no judge beside it, as the embedded server has.
        defaults["judge_url"] = "http://127.0.0.1:8001/judge"
    dagster_home = home / "dagster"
    if not embedded and environ.get("DAGSTER_HOME"):
        dagster_home = Path(environ["DAGSTER_HOME"]).absolute()
    values = {name: environ.get(name.upper(), default) for name, default in defaults.items()}
    replicas = [url.strip() for url in environ.get("VLLM_REPLICAS", "").split(",") if url.strip()]
    return Settings.model_validate(
        {
            "home": home,
            "dagster_home": dagster_home,
            "embedded": embedded,
            "model_name": environ.get("MODEL_NAME", "mistral-7b-lora"),
            "s3_endpoint_url": environ.get("AWS_ENDPOINT_URL_S3", ""),
            "vllm_api_key": environ.get("VLLM_API_KEY", ""),
            "judge_api_key": environ.get("JUDGE_API_KEY", ""),
            "judge_model": environ.get("JUDGE_MODEL", ""),
            "replica_urls": replicas,
            "vllm_max_lora_rank": environ.get("VLLM_MAX_LORA_RANK", 32),
            "vllm_python": environ.get("VLLM_PYTHON", ""),
            "vllm_service": environ.get("VLLM_SERVICE", ""),
            "vllm_pod_selector": environ.get("VLLM_POD_SELECTOR", ""),
            "vllm_container": environ.get("VLLM_CONTAINER", ""),
            "live_slot": environ.get("LIVE_SLOT", LIVE_SLOT),
            "candidate_slot": environ.get("CANDIDATE_SLOT", CANDIDATE_SLOT),
            **values,
        }
    )


def _embedded(home: Path) -> dict[str, str]:
    return {
        "mlflow_tracking_uri": f"sqlite:///{home / 'mlflow.db'}",
        "mlflow_artifacts": (home / "mlflow-artifacts").as_uri(),
        "s3_data_bucket": (home / "bucket").as_uri(),
        "vllm_url": "http://127.0.0.1:8000",
        "judge_url": "http://127.0.0.1:8000/judge",
        "prometheus_url": "",
        "adapters_dir": str(home / "adapters"),
        "base_model": str(BASE_MODEL),
        "base_model_name": EMBEDDED_BASE_NAME,
    }


def _cluster() -> dict[str, str]:
    """The defaults of the specification's parameter tables."""
    return {
        "mlflow_tracking_uri": "http://mlflow.ai-platform:80",
        "mlflow_artifacts": "",
        "s3_data_bucket": "s3://my-vllm-data",
        "vllm_url": "http://vllm-service.ml-models:8000",
        "judge_url": "http://judge-vllm-service.ml-models:8000",
        "prometheus_url": "http://monitoring-kube-prometheus-prometheus.ai-platform:9090",
        "adapters_dir": "/mnt/adapters",
        "base_model": CLUSTER_BASE_MODEL,
        "base_model_name": CLUSTER_BASE_MODEL,
    }


@dataclass(frozen=True)
class Resources:
    """The clients of a stack, under the names that assets ask for them by."""

    data_bucket: DataBucket
    io_manager: RecordIOManager
    tracking: Tracking
    registry: Registry
    trainer: Trainer
    fleet: Fleet
    judge: Judge
    server_metrics: ServerMetrics
    work_folder: WorkFolder


def make_resources(settings: Settings) -> Resources:
    """The clients that these settings describe."""
    return Resources(
        data_bucket=DataBucket(
            uri=settings.s3_data_bucket, s3_endpoint_url=settings.s3_endpoint_url
        ),
        io_manager=RecordIOManager(
            uri=settings.s3_data_bucket, s3_endpoint_url=settings.s3_endpoint_url
        ),
        tracking=Tracking(
            tracking_uri=settings.mlflow_tracking_uri, artifacts=settings.mlflow_artifacts
        ),
        registry=Registry(
            tracking_uri=settings.mlflow_tracking_uri, model_name=settings.model_name
        ),
        trainer=Trainer(
            base_model=settings.base_model,
            base_model_name=settings.base_model_name,
            embedded=settings.embedded,
        ),
        fleet=Fleet(
            vllm_url=settings.vllm_url,
            adapters_dir=str(settings.adapters_dir),
            replica_urls=list(settings.replica_urls),
            base_model=settings.base_model,
            max_lora_rank=settings.vllm_max_lora_rank,
            service=settings.vllm_service,
            pod_selector=settings.vllm_pod_selector,
            container=settings.vllm_container,
            live_slot=settings.live_slot,
            candidate_slot=settings.candidate_slot,
            api_key=settings.vllm_api_key,
        ),
        judge=Judge(
            judge_url=settings.judge_url,
            judge_model=settings.judge_model,
            api_key=settings.judge_api_key,
        ),
        server_metrics=ServerMetrics(prometheus_url=settings.prometheus_url),
        work_folder=WorkFolder(path=str(settings.home / "work")),
    )
