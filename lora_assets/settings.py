"""The settings: what the environment says of the stack to work on."""

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BeforeValidator,
    Json,
    PositiveInt,
    ValidationError,
    ValidationInfo,
    field_validator,
)
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from lora_assets.embedded.server.options import PACKAGED_BASE_MODEL
from lora_assets.errors import LoraAssetsError, validation_line
from lora_assets.kubernetes.executor import Executor
from lora_assets.resources.fleet import CANDIDATE_SLOT, LIVE_SLOT
from lora_assets.setting import Setting, setting

EMBEDDED_BASE_NAME = "embedded-base"
EMBEDDED_MLFLOW_UI = "http://127.0.0.1:5000"
"""Where 'make ui' serves MLflow's database (see Procfile)."""
CLUSTER_BASE_MODEL = "mistralai/Mistral-7B-v0.1"


class Settings(BaseSettings):
    """The settings. A default may depend on the settings declared before it."""

    model_config = SettingsConfigDict(frozen=True, case_sensitive=True, alias_generator=str.upper)

    stack: Literal["embedded", "cluster"] = setting(
        "Whose defaults to take: `embedded` or `cluster`",
        "embedded",
        cluster="cluster",
        variable="LORA_ASSETS_STACK",
    )
    home: Annotated[Path, BeforeValidator(lambda path: Path(path).absolute())] = setting(
        "Folder of everything that is kept on this machine",
        ".lora-assets",
        variable="LORA_ASSETS_HOME",
    )
    dagster_home: Path = setting(
        "Dagster's folder; in the cluster it can be one with a dagster.yaml of its own",
        "{home}/dagster",
    )
    model_name: str = setting(
        "MLflow registered model name",
        "mistral-7b-lora",
        "registry.model_name",
        option="model_name",
    )
    mlflow_tracking_uri: str = setting(
        "MLflow server URL",
        "sqlite:///{home}/mlflow.db",
        "registry.tracking_uri",
        "tracking.tracking_uri",
        cluster="http://mlflow.ai-platform:80",
        option="mlflow_tracking_uri",
    )
    mlflow_artifacts: str = setting(
        "Where new MLflow experiments keep artifacts; empty: where the server says",
        "{home_uri}/mlflow-artifacts",
        "tracking.artifacts",
        cluster="",
    )
    mlflow_ui_url: str = setting(
        "MLflow's URL for a browser; empty: the tracking server, or where `make ui` serves it"
    )
    s3_data_bucket: str = setting(
        "Bucket for training and eval data",
        "{home_uri}/bucket",
        "data_bucket.uri",
        "io_manager.uri",
        cluster="s3://my-vllm-data",
        option="s3_data_bucket",
    )
    s3_endpoint_url: str = setting(
        "URL of an S3 server; empty: AWS",
        "",
        "data_bucket.s3_endpoint_url",
        "io_manager.s3_endpoint_url",
        variable="AWS_ENDPOINT_URL_S3",
    )
    base_model: str = setting(
        "Base model: a folder, or a name on the Hugging Face hub",
        str(PACKAGED_BASE_MODEL),
        "trainer.base_model",
        "fleet.base_model",
        cluster=CLUSTER_BASE_MODEL,
    )
    base_model_name: str = setting(
        "Base model's name, as adapters and servers know it",
        EMBEDDED_BASE_NAME,
        "trainer.base_model_name",
        cluster=CLUSTER_BASE_MODEL,
    )
    vllm_url: str = setting(
        "vLLM server URL",
        "http://127.0.0.1:8000",
        "fleet.vllm_url",
        cluster="http://vllm-service.ml-models:8000",
        option="vllm_url",
    )
    replica_urls: Annotated[
        list[str],
        NoDecode,
        BeforeValidator(lambda urls: [url.strip() for url in urls.split(",") if url.strip()]),
    ] = setting(
        "URLs of the replicas, separated by commas",
        "",
        "fleet.replica_urls",
        variable="VLLM_REPLICAS",
    )
    vllm_service: str = setting(
        "`namespace/service` whose EndpointSlices name the replicas", "", "fleet.service"
    )
    vllm_pod_selector: str = setting(
        "`namespace/labels` of the pods that are the replicas", "", "fleet.pod_selector"
    )
    vllm_deployment: str = setting(
        "Kubernetes Deployment whose pods are the vLLM replicas; empty: `VLLM_URL` alone",
        "",
        "fleet.deployment",
        cluster="vllm",
        option="deployment",
    )
    vllm_namespace: str = setting(
        "Kubernetes namespace of that Deployment",
        "ml-models",
        "fleet.namespace",
        option="namespace",
    )
    vllm_container: str = setting(
        "Container of vLLM in its pod; empty: the pod's default one", "", "fleet.container"
    )
    vllm_max_lora_rank: int = setting("vLLM's `--max-lora-rank`", "32", "fleet.max_lora_rank")
    vllm_min_replicas: PositiveInt = setting(
        "Fewest ready replicas with which anything is done", "1", "fleet.min_replicas"
    )
    vllm_python: str = setting(
        "Python that has vLLM, to serve by it instead of the embedded server"
    )
    vllm_api_key: str = setting("vLLM's API key", "", "fleet.api_key", secret=True)
    adapters_dir: str = setting(
        "Folder of the adapters that a replica serves",
        "{home}/adapters",
        "fleet.adapters_dir",
        cluster="/mnt/adapters",
    )
    live_slot: str = setting(
        "Name that clients ask for: the live adapter", LIVE_SLOT, "fleet.live_slot"
    )
    candidate_slot: str = setting(
        "Name by which the adapter under test is served", CANDIDATE_SLOT, "fleet.candidate_slot"
    )
    judge_url: str = setting(
        "Judge URL",
        "http://127.0.0.1:{judge_port}/judge",
        "judge.judge_url",
        cluster="http://judge-vllm-service.ml-models:8000",
        option="judge_url",
    )
    judge_model: str = setting(
        "Judge model name (empty: auto-detect)", "", "judge.judge_model", option="judge_model"
    )
    judge_api_key: str = setting("Judge's API key", "", "judge.api_key", secret=True)
    prometheus_url: str = setting(
        "Prometheus URL (empty: each replica's /metrics)",
        "",
        "server_metrics.prometheus_url",
        cluster="http://monitoring-kube-prometheus-prometheus.ai-platform:9090",
        option="prometheus_url",
    )
    dagster_url: str = setting("Dagster whose runs the stages are; empty: they run in this process")
    dagster_ui_url: str = setting(
        "Dagster's URL for a browser; empty: `DAGSTER_URL`", "", "webhook.ui_url"
    )
    request: str = setting(
        "A name of the caller's for what it asks of `DAGSTER_URL`; "
        "the same name again follows the same run",
        variable="LORA_ASSETS_REQUEST",
    )
    argo_workflow: str = setting(
        "`namespace/name` of the Argo workflow behind a command, for its runs' tags and pages",
        variable="LORA_ASSETS_ARGO_WORKFLOW",
    )
    outputs: Annotated[Path | None, BeforeValidator(lambda folder: folder or None)] = setting(
        "Folder for the files `run-id`, `data-version`, `model-version`, `digest`, `result`",
        variable="LORA_ASSETS_OUTPUTS",
    )
    executor: Executor = setting(
        "Where steps run: `in_process`, `multiprocess` or `k8s_job` (docs/kubernetes.md)",
        "in_process",
        variable="LORA_ASSETS_EXECUTOR",
    )
    step_pods: Json[dict[str, Any]] = setting(
        "What differs in the steps' pods, as JSON", "{{}}", variable="LORA_ASSETS_STEP_PODS"
    )
    promotion: Literal["manual", "automatic"] = setting(
        "Who promotes: `manual` or `automatic`", "manual", variable="LORA_ASSETS_PROMOTION"
    )
    webhook: str = setting(
        "Slack-compatible URL for notices; empty: none are sent",
        "",
        "webhook.url",
        secret=True,
        variable="LORA_ASSETS_WEBHOOK",
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Take only what `read_settings` read."""
        return (init_settings,)

    @field_validator("dagster_home")
    @classmethod
    def _own_dagster_home(cls, folder: Path, info: ValidationInfo) -> Path:
        is_given = info.data["stack"] == "cluster" and folder != Path()
        return folder.absolute() if is_given else Path(info.data["home"]) / "dagster"

    @field_validator("dagster_ui_url")
    @classmethod
    def _dagster_for_a_browser(cls, url: str, info: ValidationInfo) -> str:
        return url or str(info.data["dagster_url"])

    @property
    def embedded(self) -> bool:
        """Return whether this is the embedded stack."""
        return self.stack == "embedded"

    @property
    def manages_dagster_home(self) -> bool:
        """Return whether Dagster's folder, with its dagster.yaml, is kept under `home`."""
        return self.dagster_home == self.home / "dagster"

    @property
    def mlflow_ui(self) -> str:
        """Return where a browser finds MLflow's pages."""
        is_server = self.mlflow_tracking_uri.startswith(("http://", "https://"))
        return self.mlflow_ui_url or (self.mlflow_tracking_uri if is_server else EMBEDDED_MLFLOW_UI)


SETTINGS: Mapping[str, Setting] = {
    name: replace(field.default_factory, variable=str(field.validation_alias))
    for name, field in Settings.model_fields.items()
    if isinstance(field.default_factory, Setting)
}


def read_settings(environ: Mapping[str, str] = os.environ) -> Settings:
    """Return the settings of the stack that LORA_ASSETS_STACK names.

    Raises LoraAssetsError for a variable whose value is not possible.
    """
    source = EnvSettingsSource(Settings)
    source.env_vars = environ
    try:
        return Settings(**source())
    except ValidationError as error:
        variable = str(error.errors()[0]["loc"][0])
        raise LoraAssetsError(
            f"{validation_line(error)}, not {environ.get(variable)!r}", f"Correct {variable}."
        ) from None
