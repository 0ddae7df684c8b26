"""What is no bucket, and a folder that can't be one; its verbs are in test_data_bucket.py."""

from pathlib import Path

import pytest

from lora_assets.errors import LoraAssetsError
from lora_assets.resources.object_store import ObjectStore, s3_resource


def test_a_folder_that_can_t_be_written_is_one_line_and_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "records" / "1.json").mkdir(parents=True)
    with pytest.raises(LoraAssetsError, match=r"Can't write .*1\.json: Is a directory"):
        ObjectStore(tmp_path.as_uri()).put("records/1.json", b"{}")
    assert [path.name for path in (tmp_path / "records").iterdir()] == ["1.json"]


@pytest.mark.parametrize(
    "uri",
    [
        *("", "bucket", "/folder", "s3://", "s3:///folder", "gs://bucket"),
        *("file://relative/folder", "file:///folder#1", "s3://bucket/what?"),
    ],
)
def test_what_would_be_another_place_than_it_says_names_no_bucket(uri: str) -> None:
    with pytest.raises(LoraAssetsError, match=r"does not name a bucket.*Give file:///folder"):
        ObjectStore(uri).get("key")


@pytest.mark.parametrize("endpoint", ["minio:9000", "http://", "nonsense"])
def test_an_endpoint_that_is_none_is_one_line(endpoint: str) -> None:
    with pytest.raises(LoraAssetsError, match="s3://my-vllm-data failed: Invalid endpoint"):
        ObjectStore("s3://my-vllm-data", s3_resource(endpoint_url=endpoint)).get("key")
