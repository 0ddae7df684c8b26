"""Records between steps: what counts, and what does not."""

from pathlib import Path

import dagster as dg
import pytest

from lora_assets.errors import LoraAssetsError
from lora_assets.records.training import Adapter
from lora_assets.resources.record_io import RecordIOManager
from tests.support.records import trained_adapter

KEY = "lora-assets/records/adapter/1.json"


def manager(folder: Path, key: str) -> RecordIOManager:
    return RecordIOManager(uri=folder.as_uri(), verdict_key=key)


def loaded(records: RecordIOManager, partition: str = "1") -> object:
    asset = dg.AssetKey("adapter")
    kind = dg.PythonObjectDagsterType(Adapter)
    context = dg.build_input_context(asset_key=asset, partition_key=partition, dagster_type=kind)
    return records.load_input(context)


def test_with_a_key_only_a_record_that_is_signed_for_its_place_is_read(tmp_path: Path) -> None:
    signing, plain = manager(tmp_path, "k" * 64), manager(tmp_path, "")
    context = dg.build_output_context(asset_key=dg.AssetKey("adapter"), partition_key="1")
    plain.handle_output(context, trained_adapter())
    with pytest.raises(LoraAssetsError, match=f"{KEY} does not count: its signature is missing"):
        loaded(signing)
    signing.handle_output(context, trained_adapter())
    assert loaded(signing) == loaded(plain) == trained_adapter()
    kept = signing.store.get(KEY)
    assert kept is not None
    for place, text in ((KEY, kept.replace(b"dddd", b"ddde", 1)), (KEY.replace("1", "2"), kept)):
        signing.store.put(place, text)
    for partition in ("1", "2"):
        with pytest.raises(LoraAssetsError, match="its signature is wrong"):
            loaded(signing, partition)


def test_a_record_that_is_none_is_named_with_what_to_do(tmp_path: Path) -> None:
    records = manager(tmp_path, "")
    for content in (b"", b"\xff", b"{}"):
        records.store.put(KEY, content)
        with pytest.raises(LoraAssetsError, match=f"{KEY} does not count: it can't be read .*Mate"):
            loaded(records)
