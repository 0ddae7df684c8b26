"""What is no bucket, and a folder that can't be one; its verbs are in test_data_bucket.py."""

from collections.abc import Callable
from pathlib import Path

import pytest

from lora_assets import bounded_calls
from lora_assets.errors import LoraAssetsError
from lora_assets.resources.object_store import ObjectStore, s3_resource
from tests.support.doubles.trickling import HEADERS, trickling


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


BODY = HEADERS + b"\r\n<"


def s3_at(url: str, monkeypatch: pytest.MonkeyPatch) -> ObjectStore:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    return ObjectStore("s3://bucket", s3_resource(endpoint_url=url, region_name="us-east-1"))


@pytest.mark.parametrize(
    ("head", "ask"),
    [
        (HEADERS, lambda store: store.get("key")),
        (BODY, lambda store: store.get("key")),
        (BODY, lambda store: store.put("key", b"content")),
        (HEADERS, lambda store: store.changed_at("key")),
        (BODY, lambda store: list(store.keys("folder"))),
    ],
)
def test_a_store_that_sends_a_byte_now_and_then_is_given_up(
    monkeypatch: pytest.MonkeyPatch, head: bytes, ask: Callable[[ObjectStore], object]
) -> None:
    monkeypatch.setattr(bounded_calls, "CALL_S", 0.3)
    with (
        trickling(head) as url,
        pytest.raises(LoraAssetsError, match=r"s3://bucket failed: no whole reply within"),
    ):
        ask(s3_at(url, monkeypatch))


def test_what_is_larger_than_it_may_be_is_refused_before_it_is_read(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with (
        trickling(BODY) as url,
        pytest.raises(LoraAssetsError, match=r"s3://bucket/key has 0 MiB, more than the 0 that"),
    ):
        s3_at(url, monkeypatch).get("key", 999_998)
    (tmp_path / "key").write_bytes(b"x" * 11)
    assert ObjectStore(tmp_path.as_uri()).get("key", 11) == b"x" * 11
    with pytest.raises(LoraAssetsError, match="more than"):
        ObjectStore(tmp_path.as_uri()).get("key", 10)
