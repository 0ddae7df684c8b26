from lora_assets.assets.run_tags import ARGO_WORKFLOW, WHY, origin


def test_a_run_without_tags_says_nothing_of_its_origin() -> None:
    assert origin({"dagster/partition": "1"}) == {}


def test_reason_and_workflow_are_shown_and_a_url_can_be_followed() -> None:
    url = "http://argo.example/workflows/ml-models/train-x7k2p"
    shown = origin({WHY: "a new data version", ARGO_WORKFLOW: url})
    assert {name: (type(v).__name__, v.value) for name, v in shown.items()} == {
        "why": ("TextMetadataValue", "a new data version"),
        "argo workflow": ("UrlMetadataValue", url),
    }
    named = origin({ARGO_WORKFLOW: "train-x7k2p"})["argo workflow"]
    assert (type(named).__name__, named.value) == ("TextMetadataValue", "train-x7k2p")
