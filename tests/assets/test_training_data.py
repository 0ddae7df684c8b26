"""What a data version's page shows of its rows."""

from pathlib import Path
from typing import Any

import dagster as dg

from lora_assets.assets.graph import data_versions
from lora_assets.assets.training_data import training_data
from lora_assets.embedded.data_set.versions import build
from lora_assets.resources.data_bucket import DataBucket


@dg.asset(partitions_def=data_versions)
def live_deployment() -> int:
    return 1


def shown(instance: dg.DagsterInstance, asset: Any, partition: str, bucket: Path) -> dict[str, Any]:
    """Return what a run of the asset put on its page."""
    instance.add_dynamic_partitions("data_version", [partition])
    resources = {"data_bucket": DataBucket(uri=f"file://{bucket}")}
    result = dg.materialize(
        [asset], instance=instance, partition_key=partition, resources=resources
    )
    (event,) = result.asset_materializations_for_node(asset.key.to_user_string())
    return {name: value.value for name, value in event.metadata.items()}


def rows(metadata: Any) -> list[dict[str, Any]]:
    return [record.data for record in metadata.records]


def test_three_rows_are_shown_as_a_reader_sees_them(
    instance: dg.DagsterInstance, tmp_path: Path
) -> None:
    build("1", ["logs"], tmp_path)
    page = shown(instance, training_data, "1", tmp_path)
    first = rows(page["first rows"])
    assert len(first) == 3
    assert all(row["question"].endswith("?") and row["reference"] for row in first)
    assert not any("[INST]" in str(row) for row in first)
    assert not any(name.startswith("against live") for name in page)


def test_the_page_says_what_is_new_against_the_data_of_live(
    instance: dg.DagsterInstance, tmp_path: Path
) -> None:
    build("1", ["logs"], tmp_path)
    build("2", ["logs", "s3"], tmp_path)
    before = rows(shown(instance, training_data, "1", tmp_path)["splits"])
    assert before[0]["rows"] > 0
    shown(instance, live_deployment, "1", tmp_path)
    assert "against live's data version 1" not in shown(instance, training_data, "1", tmp_path)
    changes = rows(shown(instance, training_data, "2", tmp_path)["against live's data version 1"])
    assert [each["split"] for each in changes] == ["train", "val", "eval"]
    assert all(each["new"] > 0 for each in changes)


def test_each_model_is_compared_with_what_is_live_of_its_own(
    instance: dg.DagsterInstance, tmp_path: Path
) -> None:
    for version, services in (("1", ["logs"]), ("2", ["logs", "s3"]), ("3", ["lambda"])):
        build(version, services, tmp_path)
    for live in ("2", "1@other"):
        shown(instance, live_deployment, live, tmp_path)

    def compared(partition: str) -> list[str]:
        page = shown(instance, training_data, partition, tmp_path)
        return [name for name in page if name.startswith("against live")]

    assert compared("3") == ["against live's data version 2"]
    assert compared("3@other") == ["against live's data version 1"]
    assert compared("3@third") == []


def test_data_of_live_that_are_gone_stop_no_new_version(
    instance: dg.DagsterInstance, tmp_path: Path
) -> None:
    shown(instance, live_deployment, "1", tmp_path)
    build("2", ["s3"], tmp_path)
    page = shown(instance, training_data, "2", tmp_path)
    assert "has no" in page["against live's data version 1"]
