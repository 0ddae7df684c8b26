from lora_assets.records.model_version import ModelVersion
from lora_assets.resources.registry import Registry
from lora_assets.resources.tracking import Tracking


def test_a_run_and_a_model_version_have_pages_in_mlflows_ui() -> None:
    tracking = Tracking(tracking_uri="sqlite:///x", ui_url="http://mlflow.example/")
    assert tracking.page("r1") == "http://mlflow.example/#/runs/r1"
    registry = Registry(tracking_uri="x", model_name="a b", ui_url="http://mlflow.example")
    version = ModelVersion(
        model="a b", version=7, digest="c", data_version="1", data_digest="d", run_id="r1"
    )
    assert registry.page(version) == "http://mlflow.example/#/models/a%20b/versions/7"
