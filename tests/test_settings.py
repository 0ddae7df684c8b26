"""The settings: their defaults by stack, and their variables."""

from pathlib import Path

import pytest

from lora_assets.errors import LoraAssetsError
from lora_assets.settings import EMBEDDED_MLFLOW_UI, SETTINGS, Settings, read_settings

CLUSTER = {"LORA_ASSETS_STACK": "cluster"}


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, EMBEDDED_MLFLOW_UI),
        ({"MLFLOW_TRACKING_URI": "http://mlflow.example"}, "http://mlflow.example"),
        (CLUSTER, "http://mlflow.ai-platform:80"),
        (CLUSTER | {"MLFLOW_UI_URL": "https://mlflow.example"}, "https://mlflow.example"),
    ],
)
def test_links_lead_to_the_tracking_server_unless_it_is_seen_from_elsewhere(
    environ: dict[str, str], expected: str
) -> None:
    assert read_settings(environ).mlflow_ui == expected


@pytest.mark.parametrize(
    ("environ", "name", "expected"),
    [
        ({}, "dagster_home", Path("/h/dagster")),
        ({"DAGSTER_HOME": "/d"}, "dagster_home", Path("/h/dagster")),
        (CLUSTER | {"DAGSTER_HOME": "/d"}, "dagster_home", Path("/d")),
        (CLUSTER | {"DAGSTER_HOME": ""}, "dagster_home", Path("/h/dagster")),
        ({}, "base_model_name", "embedded-base"),
        ({"BASE_MODEL": "/models/tiny"}, "base_model_name", "tiny"),
        ({"BASE_MODEL": "/m/tiny", "BASE_MODEL_NAME": "ours"}, "base_model_name", "ours"),
        (CLUSTER, "base_model_name", "mistralai/Mistral-7B-v0.1"),
        (CLUSTER | {"BASE_MODEL": "org/other"}, "base_model_name", "org/other"),
        ({"DAGSTER_URL": "http://d"}, "dagster_ui_url", "http://d"),
        ({"DAGSTER_URL": "http://d", "DAGSTER_UI_URL": "http://u"}, "dagster_ui_url", "http://u"),
        ({"VLLM_PYTHON": "/v"}, "judge_url", "http://127.0.0.1:8001/judge"),
        ({"VLLM_REPLICAS": "http://a, http://b/,"}, "replica_urls", ["http://a", "http://b/"]),
        ({"LORA_ASSETS_OUTPUTS": ""}, "outputs", None),
        ({"S3_DATA_BUCKET": "s3://a"}, "records_bucket", "s3://a"),
        ({"S3_DATA_BUCKET": "s3://a", "RECORDS_BUCKET": "s3://b"}, "records_bucket", "s3://b"),
        (CLUSTER | {"VLLM_DEPLOYMENT": ""}, "vllm_deployment", ""),
    ],
)
def test_a_default_follows_the_settings_that_it_depends_on(
    environ: dict[str, str], name: str, expected: object
) -> None:
    assert getattr(read_settings({"LORA_ASSETS_HOME": "/h", **environ}), name) == expected


@pytest.mark.parametrize(
    ("variable", "value", "cause"),
    [
        ("LORA_ASSETS_STACK", "clster", "Input should be 'embedded' or 'cluster', not 'clster'"),
        ("LORA_ASSETS_HOME", "", "Value error, it is empty, not ''"),
        ("VLLM_URL", "http://h:99999", "Value error, Port out of range.*, not 'http://h:99999'"),
        ("VLLM_MAX_LORA_RANK", "high", "Input should be a valid integer.*, not 'high'"),
    ],
)
def test_an_impossible_value_is_refused_by_its_variable(
    variable: str, value: str, cause: str
) -> None:
    with pytest.raises(LoraAssetsError, match=f"^{variable}: {cause}. Correct {variable}.$"):
        read_settings({"DAGSTER_HOME": "/d", "DAGSTER_UI_URL": "http://u", variable: value})


def test_every_field_of_the_settings_is_declared_as_a_setting() -> None:
    assert SETTINGS.keys() == Settings.model_fields.keys()
