import pytest

from lora_assets.errors import LoraAssetsError
from lora_assets.settings import EMBEDDED_MLFLOW_UI, read_settings


@pytest.mark.parametrize(
    ("environ", "found"),
    [
        ({}, EMBEDDED_MLFLOW_UI),
        ({"MLFLOW_TRACKING_URI": "http://mlflow.example"}, "http://mlflow.example"),
        ({"LORA_ASSETS_STACK": "cluster"}, "http://mlflow.ai-platform:80"),
        (
            {"LORA_ASSETS_STACK": "cluster", "MLFLOW_UI_URL": "https://mlflow.example"},
            "https://mlflow.example",
        ),
    ],
)
def test_links_lead_to_the_tracking_server_unless_it_is_seen_from_elsewhere(
    environ: dict[str, str], found: str
) -> None:
    assert read_settings(environ).mlflow_ui == found


def test_a_stack_that_is_none_is_refused() -> None:
    with pytest.raises(LoraAssetsError, match="LORA_ASSETS_STACK is 'clster'"):
        read_settings({"LORA_ASSETS_STACK": "clster"})
