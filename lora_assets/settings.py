"""The settings: what the environment says of the stack to work on."""

import os
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Json,
    NonNegativeInt,
    PositiveInt,
    ValidationError,
    ValidationInfo,
    field_validator,
)

from lora_assets.embedded.server.options import PACKAGED_BASE_MODEL
from lora_assets.errors import LoraAssetsError, validation_line
from lora_assets.kubernetes import Executor
from lora_assets.records.served import CANDIDATE_SLOT, LIVE_SLOT
from lora_assets.resources.signature import VERDICT_KEY
from lora_assets.serving.vllm_plugin.guard import ADMIN_KEY
from lora_assets.setting import Setting, setting
from lora_assets.training.base_identity import is_folder

EMBEDDED_BASE_NAME = "embedded-base"
EMBEDDED_MLFLOW_UI = "http://127.0.0.1:5000"
EMBEDDED_DAGSTER_UI = "http://127.0.0.1:3000"
"""Where 'make ui' serves MLflow's database, and Dagster (see Procfile)."""


def _given(folder: str) -> str:
    """Refuse the empty text, which would be the working directory."""
    if not folder:
        raise ValueError("it is empty")
    return folder


class Settings(BaseModel):
    """The settings. A default may depend on the settings declared before it."""

    model_config = ConfigDict(
        frozen=True, validate_default=True, alias_generator=str.upper, use_attribute_docstrings=True
    )

    stack: Literal["embedded", "cluster"] = setting(
        "embedded", cluster="cluster", variable="LORA_ASSETS_STACK"
    )
    """Whose defaults to take: `embedded` or `cluster`"""
    home: Annotated[Path, BeforeValidator(_given), AfterValidator(Path.absolute)] = setting(
        ".lora-assets", variable="LORA_ASSETS_HOME"
    )
    """Folder of everything that is kept on this machine"""
    dagster_home: Path = setting("{home}/dagster")
    """Dagster's folder; in the cluster it can be one with a dagster.yaml of its own"""
    model_name: str = setting("mistral-7b-lora", "registry.model_name", "registry.own_model")
    """MLflow registered model name"""
    verdict_key: str = setting(
        "", "registry.verdict_key", "io_manager.verdict_key", secret=True, variable=VERDICT_KEY
    )
    """Key that verdicts are signed with; empty: they are not signed"""
    mlflow_tracking_uri: str = setting(
        "{home_sqlite}/mlflow.db",
        "registry.tracking_uri",
        "tracking.tracking_uri",
        cluster="http://mlflow.ai-platform:80",
    )
    """MLflow server URL"""
    mlflow_artifacts: str = setting("{home_uri}/mlflow-artifacts", "tracking.artifacts", cluster="")
    """Where new MLflow experiments keep artifacts; empty: where the server says"""
    mlflow_ui_url: str = setting()
    """MLflow's URL for a browser; empty: the tracking server, or where `make ui` serves it"""
    s3_data_bucket: str = setting(
        "{home_uri}/bucket", "data_bucket.uri", cluster="s3://my-vllm-data"
    )
    """Bucket for training and eval data"""
    max_split_mib: PositiveInt = setting(
        "512", "data_bucket.max_split_mib", variable="LORA_ASSETS_MAX_SPLIT_MIB"
    )
    """Largest split that a step reads, in MiB"""
    records_bucket: str = setting("{s3_data_bucket}", "io_manager.uri")
    """Bucket for what the assets of one run leave to the next"""
    s3_endpoint_url: str = setting("", "s3.endpoint_url", variable="AWS_ENDPOINT_URL_S3")
    """URL of an S3 server; empty: AWS"""
    s3_region: str = setting("", "s3.region_name", variable="AWS_DEFAULT_REGION")
    """Region of the S3 server; empty: that of the AWS profile"""
    base_model: str = setting(
        str(PACKAGED_BASE_MODEL),
        "trainer.base_model",
        "fleet.base_model",
        cluster="mistralai/Mistral-7B-v0.1@27d67f1b5f57dc0953326b2601d68371d40ea8da",
    )
    """Base model: a folder, or on the Hugging Face hub `name@revision`"""
    base_model_name: str = setting("", "trainer.base_model_name")
    """Base model's name, as adapters and servers know it; empty: its folder's or the hub's"""
    vllm_url: str = setting(
        "http://127.0.0.1:8000", "fleet.vllm_url", cluster="http://vllm-service.ml-models:8000"
    )
    """vLLM server URL"""
    replica_urls: Annotated[
        list[str],
        BeforeValidator(lambda urls: [url.strip() for url in urls.split(",") if url.strip()]),
    ] = setting("", "fleet.replica_urls", variable="VLLM_REPLICAS")
    """URLs of the replicas, separated by commas"""
    vllm_service: str = setting("", "fleet.service")
    """`namespace/service` whose EndpointSlices name the replicas"""
    vllm_pod_selector: str = setting("", "fleet.pod_selector")
    """`namespace/labels` of the pods that are the replicas"""
    vllm_deployment: str = setting("", "fleet.deployment", cluster="vllm")
    """Kubernetes Deployment whose pods are the vLLM replicas; empty: `VLLM_URL` alone"""
    vllm_namespace: str = setting("ml-models", "fleet.namespace")
    """Kubernetes namespace of that Deployment"""
    vllm_container: str = setting("", "fleet.container")
    """Container of vLLM in its pod; empty: its only one"""
    vllm_max_lora_rank: int = setting("32", "fleet.max_lora_rank")
    """vLLM's `--max-lora-rank`"""
    vllm_max_model_len: NonNegativeInt = setting("0", "fleet.max_model_len")
    """vLLM's `--max-model-len`, which data are measured against; 0: `VLLM_URL` is asked"""
    vllm_min_replicas: PositiveInt = setting("1", "fleet.min_replicas")
    """Minimum number of ready replicas"""
    vllm_python: str = setting()
    """Python that has vLLM, to serve by it instead of the embedded server"""
    vllm_api_key: str = setting("", "fleet.api_key", secret=True)
    """vLLM's API key"""
    vllm_admin_key: str = setting("", "fleet.admin_key", secret=True, variable=ADMIN_KEY)
    """Key that loads and unloads adapters; empty: vLLM's API key does"""
    adapters_dir: str = setting("{home}/adapters", "fleet.adapters_dir", cluster="/mnt/adapters")
    """Folder of the adapters that a replica serves"""
    live_slot: str = setting(LIVE_SLOT, "fleet.live_slot")
    """Name that clients ask for: the live adapter"""
    candidate_slot: str = setting(CANDIDATE_SLOT, "fleet.candidate_slot")
    """Name by which the adapter under test is served"""
    judge_url: str = setting(
        "http://127.0.0.1:{judge_port}/judge",
        "judge.judge_url",
        cluster="http://judge-vllm-service.ml-models:8000",
    )
    """Judge URL"""
    judge_model: str = setting("", "judge.judge_model")
    """Judge model name (empty: auto-detect)"""
    judge_api_key: str = setting("", "judge.api_key", secret=True)
    """Judge's API key"""
    prometheus_url: str = setting(
        "",
        "server_metrics.prometheus_url",
        cluster="http://monitoring-kube-prometheus-prometheus.ai-platform:9090",
    )
    """Prometheus URL (empty: each replica's /metrics)"""
    prometheus_selector: str = setting("", "server_metrics.selector")
    """Labels of the fleet's own series, as in `job="vllm"`; empty: `pod` is one of its pods"""
    dagster_url: str = setting()
    """Dagster whose runs the stages are; empty: they run in this process"""
    dagster_ui_url: str = setting("", "webhook.ui_url")
    """Dagster's URL for a browser; empty: `DAGSTER_URL`"""
    request: str = setting(variable="LORA_ASSETS_REQUEST")
    """The caller's name for a run on `DAGSTER_URL`; the same name again follows the same run"""
    argo_workflow: str = setting(variable="LORA_ASSETS_ARGO_WORKFLOW")
    """`namespace/name` of the Argo workflow behind a command, for its runs' tags and pages"""
    outputs: Annotated[Path | None, BeforeValidator(lambda folder: folder or None)] = setting(
        variable="LORA_ASSETS_OUTPUTS"
    )
    """Folder for the files `run-id`, `data-version`, `model-version`, `digest`, `result`"""
    executor: Executor = setting("in_process", variable="LORA_ASSETS_EXECUTOR")
    """Where steps run: `in_process`, `multiprocess` or `k8s_job` (docs/kubernetes.md)"""
    step_pods: Json[dict[str, Any]] = setting("{{}}", variable="LORA_ASSETS_STEP_PODS")
    """What differs in the steps' pods, as JSON"""
    promotion: Literal["manual", "automatic"] = setting("manual", variable="LORA_ASSETS_PROMOTION")
    """Who promotes: `manual` or `automatic`"""
    policy: str = setting("", "policy.path", variable="LORA_ASSETS_POLICY")
    """YAML file of what an adapter must be to go live (docs/gates.md); empty: the specification"""
    webhook: str = setting("", "webhook.url", secret=True, variable="LORA_ASSETS_WEBHOOK")
    """Slack-compatible URL for notices; empty: none are sent"""

    @field_validator("base_model_name")
    @classmethod
    def _named_after_its_folder(cls, name: str, info: ValidationInfo) -> str:
        base = str(info.data.get("base_model", ""))
        if Path(base).absolute() == PACKAGED_BASE_MODEL:
            return name or EMBEDDED_BASE_NAME
        return name or (Path(base).absolute().name if is_folder(base) else base.partition("@")[0])

    @field_validator("vllm_url", "judge_url", "prometheus_url", "dagster_url")
    @classmethod
    def _possible_port(cls, url: str) -> str:
        """Refuse what `urlsplit` does: a port above 65535, a bracket without its other one."""
        _ = urlsplit(url).port
        return url

    @field_validator("dagster_home")
    @classmethod
    def _own_dagster_home(cls, folder: Path, info: ValidationInfo) -> Path:
        # A setting that is refused is missing here.
        is_given = info.data.get("stack") == "cluster" and folder != Path()
        return folder.absolute() if is_given else info.data.get("home", folder) / "dagster"

    @field_validator("dagster_ui_url")
    @classmethod
    def _dagster_for_a_browser(cls, url: str, info: ValidationInfo) -> str:
        return url or info.data.get("dagster_url", url)

    @property
    def embedded(self) -> bool:
        """Return whether this is the embedded stack."""
        return self.stack == "embedded"

    @property
    def manages_dagster_home(self) -> bool:
        """Return whether Dagster's folder, with its dagster.yaml, is kept under `home`."""
        return self.dagster_home == self.home / "dagster"

    @property
    def dagster_ui(self) -> str:
        """Return where a browser finds Dagster's pages; empty where nothing says it."""
        return self.dagster_ui_url or (EMBEDDED_DAGSTER_UI if self.embedded else "")

    @property
    def mlflow_ui(self) -> str:
        """Return where a browser finds MLflow's pages."""
        is_server = self.mlflow_tracking_uri.startswith(("http://", "https://"))
        return self.mlflow_ui_url or (self.mlflow_tracking_uri if is_server else EMBEDDED_MLFLOW_UI)


SETTINGS: Mapping[str, Setting] = {
    name: replace(
        field.default_factory, variable=str(field.validation_alias), help=str(field.description)
    )
    for name, field in Settings.model_fields.items()
    if isinstance(field.default_factory, Setting)
}


def fields_given(settings: Settings) -> dict[str, dict[str, Any]]:
    """Return what these settings say of each resource, by resource and field."""
    fields: dict[str, dict[str, Any]] = defaultdict(dict)
    for name, each in SETTINGS.items():
        for resource, _, field in (given.partition(".") for given in each.gives):
            fields[resource][field] = getattr(settings, name)
    return fields


def read_settings(environ: Mapping[str, str] = os.environ) -> Settings:
    """Return the settings of the stack that LORA_ASSETS_STACK names.

    Raises LoraAssetsError for a variable whose value is not possible.
    """
    try:
        return Settings.model_validate(dict(environ))
    except ValidationError as error:
        variable = str(error.errors()[0]["loc"][0])
        raise LoraAssetsError(
            f"{validation_line(error)}, not {environ.get(variable)!r}", f"Correct {variable}."
        ) from None
