"""The data bucket as a folder and on a real S3 server, with the sensor and the asset over it."""

import os
import tracemalloc
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from filelock import FileLock, Timeout

from lora_assets.assets.training_data import data_is_sound, training_data
from lora_assets.embedded.data_set.versions import build
from lora_assets.errors import LoraAssetsError
from lora_assets.records.dataset import SPLITS, SplitName
from lora_assets.resources.data_bucket import PROCESSED, DataBucket
from lora_assets.resources.object_store import s3_resource
from tests.support.automated import Automated
from tests.support.cluster_parts import S3_KEY, S3_SECRET, s3_server
from tests.support.rows import make_line

pytestmark = pytest.mark.integration

BUCKET = "my-vllm-data"
VERSIONS = 340
"""Their 1,020 objects are more than one page of an S3 listing (1,000 keys)."""


@pytest.fixture
def s3(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """An S3 server's URL, and the folder of its one bucket, which is there from its start.

    rclone keeps what it has listed, and hangs when it is told not to: each test has its own.
    """
    folder = tmp_path / "s3" / BUCKET
    folder.mkdir(parents=True)
    server = s3_server(folder.parent)
    with server.running():
        yield server.url, folder


@pytest.fixture(params=["folder", "s3"])
def bucket(request: pytest.FixtureRequest, tmp_path: Path) -> DataBucket:
    """An empty bucket."""
    if request.param == "folder":
        return DataBucket(uri=tmp_path.as_uri())
    monkeypatch: pytest.MonkeyPatch = request.getfixturevalue("monkeypatch")
    url, _ = request.getfixturevalue("s3")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", S3_KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", S3_SECRET)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    return DataBucket(uri=f"s3://{BUCKET}/inside", s3=s3_resource(endpoint_url=url))


def put(bucket: DataBucket, key: str, content: bytes = b"{}\n") -> None:
    bucket.store.put(f"{PROCESSED}/{key}", content)


def test_a_folder_has_one_writer_between_the_look_at_a_version_and_its_last_split(
    tmp_path: Path,
) -> None:
    lock, seen = tmp_path / PROCESSED / ".lock", []

    class Contents(dict[SplitName, bytes]):
        def items(self) -> Any:
            for split, content in super().items():
                with pytest.raises(Timeout):
                    FileLock(lock, timeout=0).acquire()
                seen.append(split)
                yield split, content

    bucket = DataBucket(uri=tmp_path.as_uri())
    assert bucket.add("1", Contents.fromkeys(SPLITS, b"{}")) == bucket.source("1")
    assert (seen, bucket.survey()) == ([*SPLITS], (("1",), {}))


@pytest.mark.parametrize("content", [b"", b"\x00\xff\n", b"a" * (6 << 20)])
def test_what_was_put_is_got(bucket: DataBucket, content: bytes) -> None:
    assert bucket.store.get("a/b/c.bin") is None
    bucket.store.put("a/b/c.bin", content)
    assert bucket.store.get("a/b/c.bin") == content
    bucket.store.put("a/b/c.bin", b"other")
    assert bucket.store.get("a/b/c.bin") == b"other"
    assert bucket.store.get("a/b") is None


def test_the_keys_below_a_folder_are_named(bucket: DataBucket) -> None:
    assert list(bucket.store.keys("data/processed")) == []
    for key in ("2/train", "10/train", "10/deeper/still"):
        bucket.store.put(f"data/processed/{key}", b"x")
    bucket.store.put("data/processed-not/1/train", b"x")
    # S3 lists every object; a local folder is read two levels deep, with its folders' markers.
    beside = {"10/deeper/still"} if bucket.s3 else {"2/", "10/"}
    assert set(bucket.store.keys("data/processed")) == {"2/train", "10/train"} | beside


def test_what_is_passed_over_has_a_reason_and_a_link_is_a_folder(
    bucket: DataBucket, tmp_path: Path
) -> None:
    for split in SPLITS:
        for version in ("1", ".3.aside", "my data", "données", "1...3"):
            put(bucket, f"{version}/{split}.jsonl")
    for key in ("half/train.jsonl", "team/2/train.jsonl", "notes.txt", ".DS_Store", "1/.DS_Store"):
        put(bucket, key)
    expected = {
        **dict.fromkeys(("my data", "données", "1...3"), "can't be the name of a data version"),
        "half": "lacks val.jsonl, eval.jsonl",
        "team": "lacks train.jsonl, val.jsonl, eval.jsonl",
        "notes.txt": "is not a folder",
    }
    assert bucket.survey() == (("1",), expected)
    if bucket.s3 is None:
        (tmp_path / PROCESSED / "2").symlink_to(tmp_path / PROCESSED / "1")
        assert bucket.versions() == ("1", "2")


def test_a_listing_of_more_than_one_page_is_whole(
    bucket: DataBucket, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    top = tmp_path
    if bucket.s3:
        top = request.getfixturevalue("s3")[1] / "inside"
    for number in range(VERSIONS):
        version = top / PROCESSED / str(number)
        version.mkdir(parents=True)
        for split in SPLITS:
            (version / f"{split}.jsonl").touch()
    assert len(bucket.versions()) == VERSIONS


def test_a_data_version_arrives_with_its_last_split(bucket: DataBucket, tmp_path: Path) -> None:
    before = datetime.now(UTC).replace(microsecond=0)
    for file in build("7", ["logs"], tmp_path / "built").iterdir():
        put(bucket, f"7/{file.name}", file.read_bytes())
    arrived = datetime.fromisoformat(bucket.read("7")[0].arrived)
    assert before <= arrived <= datetime.now(UTC)


def test_a_split_is_read_in_less_memory_than_its_own_bytes(tmp_path: Path) -> None:
    bucket = DataBucket(uri=tmp_path.as_uri())
    for number, split in enumerate(SPLITS):
        lines = (make_line(1000 * number + n, context=f"{n}" * 200) for n in range(400))
        put(bucket, f"7/{split}.jsonl", "\n".join(lines).encode())
    length = (tmp_path / PROCESSED / "7/train.jsonl").stat().st_size
    bucket.read("7", keep=())
    tracemalloc.start()
    try:
        data, kept = bucket.read("7", keep=())
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert data.splits["train"].rows == 400
    assert kept == {}
    assert peak < length, f"{peak} bytes for a split of {length}"
    assert [len(rows) for rows in bucket.read("7", keep=["eval"])[1].values()] == [400]


def test_a_split_above_the_limit_is_refused_before_it_is_read(tmp_path: Path) -> None:
    bucket = DataBucket(uri=tmp_path.as_uri())
    for split in SPLITS:
        put(bucket, f"7/{split}.jsonl")
    os.truncate(tmp_path / PROCESSED / "7/train.jsonl", 5 << 30)
    with pytest.raises(LoraAssetsError, match=r"train\.jsonl has 5,120 MiB, more than the 512 "):
        bucket.read("7")


def test_a_new_version_starts_and_becomes_a_sound_asset(
    bucket: DataBucket, instance: dg.DagsterInstance, tmp_path: Path
) -> None:
    endpoint = bucket.s3.endpoint_url if bucket.s3 else ""
    environment = {"S3_DATA_BUCKET": bucket.uri, "AWS_ENDPOINT_URL_S3": endpoint}
    automated = Automated(tmp_path / "home", instance, **environment)
    assert automated.wanted() == {}
    built = build("7", ["logs"], tmp_path / "built")
    for file in sorted(built.iterdir()):
        assert automated.wanted() == {}
        put(bucket, f"7/{file.name}", file.read_bytes())
    (started,) = automated.wanted()
    result = dg.materialize(
        [training_data, data_is_sound],
        instance=instance,
        partition_key=started,
        resources=vars(automated.resources),
    )
    assert result.success
    data = result.output_for_node("training_data")
    assert data.source == f"{bucket.uri}/{PROCESSED}/7"
    read = (data.data_version, data.digest)
    moved = bucket.read_unchanged(*read, f"file:///gone/{PROCESSED}/7")
    assert moved == bucket.read_unchanged(*read, data.source)
    put(bucket, "7/val.jsonl")
    with pytest.raises(LoraAssetsError, match=r"val\.jsonl"):
        bucket.read_unchanged(*read, data.source)
