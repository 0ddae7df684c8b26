"""Which stack to run on: the settings that the environment gives, and the resources they make."""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from lora_assets.errors import LoraAssetsError
from lora_assets.records import Record
from lora_assets.resources.automation import Automation
from lora_assets.resources.data_bucket import DataBucket
from lora_assets.resources.fleet import CANDIDATE_SLOT, LIVE_SLOT, Fleet
from lora_assets.resources.judge import Judge
from lora_assets.resources.record_io import RecordIOManager
from lora_assets.resources.registry import Registry
from lora_assets.resources.server_metrics import ServerMetrics
from lora_assets.resources.tracking import Tracking
from lora_assets.resources.trainer import Trainer
from lora_assets.resources.webhook import Webhook
from lora_assets.resources.work_folder import WorkFolder

BASE_MODEL = Path(__file__).parent / "embedded" / "base_model"
EMBEDDED_BASE_NAME = "embedded-base"
EMBEDDED_MLFLOW_UI = "http://127.0.0.1:5000"
"""Where 'make ui' serves MLflow's database (see Procfile)."""
CLUSTER_BASE_MODEL = "mistralai/Mistral-7B-v0.1"

Executor = Literal["in_process", "multiprocess", "k8s_job"]
"""Where the steps of a run are: in the run's process, in one each, or in a pod each."""


class Settings(Record):
    """Where everything is. Embedded: all of it under `home`; cluster: the specification's URLs."""

    home: Path
    dagster_home: Path
    embedded: bool
    model_name: str
    mlflow_tracking_uri: str
    mlflow_artifacts: str
    mlflow_ui_url: str
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
    vllm_deployment: str
    vllm_namespace: str
    live_slot: str
    candidate_slot: str
    judge_url: str
    judge_model: str
    judge_api_key: str
    prometheus_url: str
    base_model: str
    base_model_name: str
    dagster_url: str
    dagster_ui_url: str
    request: str
    argo_workflow: str
    outputs: Path | None
    executor: Executor
    step_pods: Mapping[str, Any]
    promotion: Literal["automatic", "manual"]
    webhook: str

    @property
    def dagster_is_ours(self) -> bool:
        """Whether Dagster's folder, with its dagster.yaml, is kept by us under `home`."""
        return self.dagster_home == self.home / "dagster"

    @property
    def mlflow_ui(self) -> str:
        """Where a browser finds MLflow's pages: as set, or the server itself, or 'make ui'."""
        is_server = self.mlflow_tracking_uri.startswith(("http://", "https://"))
        return self.mlflow_ui_url or (self.mlflow_tracking_uri if is_server else EMBEDDED_MLFLOW_UI)


def read_settings(environ: Mapping[str, str] = os.environ) -> Settings:
    """The settings of LORA_ASSETS_STACK (embedded or cluster), each overridable by its variable.

    A setting's variable is its name in capitals, as in VLLM_URL or MLFLOW_TRACKING_URI;
    LORA_ASSETS_HOME is the folder for everything that is kept here, LORA_ASSETS_EXECUTOR is
    where steps run, and LORA_ASSETS_STEP_PODS (JSON) what differs in their pods. In the
    cluster, DAGSTER_HOME holds the deployment's own dagster.yaml, which is taken as it is.
    """
    home = Path(environ.get("LORA_ASSETS_HOME", ".lora-assets")).absolute()
    embedded = _one_of(environ, "LORA_ASSETS_STACK", ("embedded", "cluster")) == "embedded"
    vllm_python = environ.get("VLLM_PYTHON", "")
    defaults = _embedded(home, bool(vllm_python)) if embedded else _cluster()
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
            "vllm_python": vllm_python,
            "vllm_service": environ.get("VLLM_SERVICE", ""),
            "vllm_pod_selector": environ.get("VLLM_POD_SELECTOR", ""),
            "vllm_container": environ.get("VLLM_CONTAINER", ""),
            "vllm_namespace": environ.get("VLLM_NAMESPACE", "ml-models"),
            "live_slot": environ.get("LIVE_SLOT", LIVE_SLOT),
            "candidate_slot": environ.get("CANDIDATE_SLOT", CANDIDATE_SLOT),
            "dagster_url": environ.get("DAGSTER_URL", ""),
            "dagster_ui_url": environ.get("DAGSTER_UI_URL") or environ.get("DAGSTER_URL", ""),
            "request": environ.get("LORA_ASSETS_REQUEST", ""),
            "argo_workflow": environ.get("LORA_ASSETS_ARGO_WORKFLOW", ""),
            "outputs": environ.get("LORA_ASSETS_OUTPUTS") or None,
            "executor": _one_of(environ, "LORA_ASSETS_EXECUTOR", get_args(Executor)),
            "step_pods": _step_pods(environ.get("LORA_ASSETS_STEP_PODS", "{}")),
            "promotion": _one_of(environ, "LORA_ASSETS_PROMOTION", ("manual", "automatic")),
            "webhook": environ.get("LORA_ASSETS_WEBHOOK", ""),
            **values,
        }
    )


def _one_of(environ: Mapping[str, str], name: str, choices: Sequence[str]) -> str:
    """The variable's value, which is one of `choices`; the first of them where it is not set."""
    value = environ.get(name, choices[0])
    if value not in choices:
        raise LoraAssetsError(f"{name} is {value!r}", f"Set it to one of {', '.join(choices)}.")
    return value


def _step_pods(text: str) -> Mapping[str, Any]:
    try:
        step_pods = json.loads(text)
    except ValueError as error:
        raise LoraAssetsError(
            f"LORA_ASSETS_STEP_PODS is no JSON ({error})", "Correct it, or leave it out."
        ) from None
    if not isinstance(step_pods, dict):
        raise LoraAssetsError(
            "LORA_ASSETS_STEP_PODS is no JSON object",
            'Write {"<step>": {"pod_spec_config": …}, …}.',
        )
    return step_pods


def _embedded(home: Path, real_vllm: bool) -> dict[str, str]:
    return {
        "mlflow_tracking_uri": f"sqlite:///{home / 'mlflow.db'}",
        "mlflow_artifacts": (home / "mlflow-artifacts").as_uri(),
        "mlflow_ui_url": "",
        "s3_data_bucket": (home / "bucket").as_uri(),
        "vllm_url": "http://127.0.0.1:8000",
        # vLLM has no judge beside it, as the embedded server has.
        "judge_url": f"http://127.0.0.1:{8001 if real_vllm else 8000}/judge",
        "vllm_deployment": "",
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
        "mlflow_ui_url": "",
        "s3_data_bucket": "s3://my-vllm-data",
        "vllm_url": "http://vllm-service.ml-models:8000",
        "vllm_deployment": "vllm",
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
    automation: Automation
    webhook: Webhook


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
            tracking_uri=settings.mlflow_tracking_uri,
            artifacts=settings.mlflow_artifacts,
            ui_url=settings.mlflow_ui,
        ),
        registry=Registry(
            tracking_uri=settings.mlflow_tracking_uri,
            model_name=settings.model_name,
            ui_url=settings.mlflow_ui,
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
            deployment=settings.vllm_deployment,
            namespace=settings.vllm_namespace,
            live_slot=settings.live_slot,
            candidate_slot=settings.candidate_slot,
            api_key=settings.vllm_api_key,
            shares_machine=settings.embedded,
        ),
        judge=Judge(
            judge_url=settings.judge_url,
            judge_model=settings.judge_model,
            api_key=settings.judge_api_key,
        ),
        server_metrics=ServerMetrics(prometheus_url=settings.prometheus_url),
        work_folder=WorkFolder(path=str(settings.home / "work")),
        automation=Automation(automatic_promotion=settings.promotion == "automatic"),
        webhook=Webhook(url=settings.webhook, ui_url=settings.dagster_ui_url),
    )
