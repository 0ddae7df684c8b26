from lora_assets.assets.pages import origin
from lora_assets.records.run_tags import ARGO_WORKFLOW, BY, WHY, launch_tags, requested_by, user


def test_a_run_without_tags_says_nothing_of_its_origin() -> None:
    assert origin({"dagster/partition": "1"}) == {}


def test_outside_of_argo_a_run_has_no_workflow() -> None:
    assert launch_tags("lora-assets train", "") == {WHY: "lora-assets train", BY: user()}
    assert launch_tags("lora-assets train", "ns/w")[ARGO_WORKFLOW] == "ns/w"


def test_reason_and_workflow_are_shown_and_a_url_can_be_followed() -> None:
    url = "http://argo.example/workflows/ml-models/train-x7k2p"
    shown = origin({WHY: "a new data version", ARGO_WORKFLOW: url})
    assert {name: (type(v).__name__, v.value) for name, v in shown.items()} == {
        "why": ("TextMetadataValue", "a new data version"),
        "argo workflow": ("UrlMetadataValue", url),
    }
    named = origin({ARGO_WORKFLOW: "train-x7k2p"})["argo workflow"]
    assert (type(named).__name__, named.value) == ("TextMetadataValue", "train-x7k2p")


def test_the_history_names_who_started_a_run() -> None:
    assert requested_by(launch_tags("lora-assets promote", "")) == user()
    assert requested_by(launch_tags("lora-assets promote", "ns/w")) == "Argo workflow ns/w"
    assert requested_by({"dagster/sensor_name": "new_data_versions"}) == "sensor new_data_versions"
    assert requested_by({"dagster/backfill": "abc"}) == "backfill abc"
    assert requested_by({}) == "Dagster's UI"
