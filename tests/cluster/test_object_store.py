"""The data bucket's verbs, on S3 as in a folder."""

from pathlib import Path

import pytest

from lora_assets.resources.object_store import ObjectStore
from tests.support.cluster import BUCKET, Cluster

pytestmark = pytest.mark.e2e


@pytest.fixture(params=["s3", "folder"])
def store(cluster: Cluster, request: pytest.FixtureRequest, tmp_path: Path) -> ObjectStore:
    if request.param == "folder":
        return ObjectStore(tmp_path.as_uri())
    return ObjectStore(f"s3://{BUCKET}/tests/{tmp_path.name}", cluster.resources.data_bucket.s3)


@pytest.mark.parametrize("content", [b"", b"\x00\xff\n", b"a" * (6 << 20)])
def test_what_was_put_is_got(store: ObjectStore, content: bytes) -> None:
    assert store.get("a/b/c.bin") is None
    store.put("a/b/c.bin", content)
    assert store.get("a/b/c.bin") == content
    store.put("a/b/c.bin", b"other")
    assert store.get("a/b/c.bin") == b"other"
    assert store.get("a/b") is None


def test_the_keys_below_a_folder_are_named(store: ObjectStore) -> None:
    assert list(store.keys("data/processed")) == []
    for key in ("2/train", "10/train", "10/deeper/still"):
        store.put(f"data/processed/{key}", b"x")
    store.put("data/processed-not/1/train", b"x")
    # S3 lists every object; a local folder is read two levels deep, with its folders' markers.
    beside = {"10/deeper/still"} if store.uri.startswith("s3:") else {"2/", "10/"}
    assert set(store.keys("data/processed")) == {"2/train", "10/train"} | beside
