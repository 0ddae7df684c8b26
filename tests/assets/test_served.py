"""One candidate slot, and many versions that are judged in turn."""

from pathlib import Path

import pytest

from lora_assets.assets.served import ensure_candidate_slot, ensure_loaded
from lora_assets.errors import LoraAssetsError
from lora_assets.records.model_version import ModelVersion
from lora_assets.records.served import CANDIDATE_SLOT
from lora_assets.stack_resources import Resources
from tests.support.commands import serve
from tests.support.stack import trained


def stage(resources: Resources, folder: Path, data_version: str) -> ModelVersion:
    """A version that its own run put into the candidate slot."""
    version = resources.registry.register(trained(resources, folder, data_version))
    serve(resources, version, CANDIDATE_SLOT)
    resources.registry.set_alias("staged", version)
    return version


def take(resources: Resources, version: ModelVersion, slot: str = CANDIDATE_SLOT) -> bool:
    registry, fleet, work_folder = resources.registry, resources.fleet, resources.work_folder
    return ensure_candidate_slot(registry, fleet.discover(), slot, version, work_folder)


def test_the_candidate_slot_is_taken_back_from_another_version(
    resources: Resources, adapter_folders: tuple[Path, ...]
) -> None:
    first = stage(resources, adapter_folders[0], "1")
    assert not take(resources, first)
    stage(resources, adapter_folders[1], "2")
    assert take(resources, first)
    assert set(resources.fleet.discover().serving(CANDIDATE_SLOT).values()) == {first.digest}
    assert resources.registry.aliases()["staged"] == first
    assert not take(resources, first)


def test_an_adapter_that_a_promotion_retired_is_brought_back(
    resources: Resources, adapter_folders: tuple[Path, ...]
) -> None:
    first = stage(resources, adapter_folders[0], "1")
    second = stage(resources, adapter_folders[1], "2")
    resources.fleet.discover().retire([second.digest])
    assert not resources.fleet.discover().holds(first.digest)
    assert take(resources, first)
    assert set(resources.fleet.discover().serving(first.serving_name).values()) == {first.digest}


def test_the_same_bytes_of_two_data_versions_are_two_model_versions(
    resources: Resources, adapter_folders: tuple[Path, ...]
) -> None:
    first = resources.registry.register(trained(resources, adapter_folders[0], "1"))
    second = resources.registry.register(trained(resources, adapter_folders[0], "2"))
    assert (first.digest, first.data_version) == (second.digest, "1")
    assert second.data_version == "2"
    assert resources.registry.register(trained(resources, adapter_folders[0], "1")) == first


def test_an_adapter_of_another_base_model_is_not_loaded_and_one_without_a_base_is_warned_of(
    resources: Resources, adapter_folders: tuple[Path, ...], caplog: pytest.LogCaptureFixture
) -> None:
    registry, replicas = resources.registry, resources.fleet.discover()
    before = trained(resources, adapter_folders[0], "1")
    served = replicas.members[0].listing().base_identity
    assert served is not None
    versions = [
        registry.register(before.model_copy(update={"base": base, "base_model": "any name"}))
        for base in ("0" * 64, served)
    ]
    with pytest.raises(LoraAssetsError, match=f"serves another base model .* {served[:12]}, those"):
        ensure_loaded(registry, replicas, versions[0], resources.work_folder)
    assert versions[0].serving_name not in replicas.members[0].loaded()
    ensure_loaded(registry, replicas, versions[1], resources.work_folder)
    assert caplog.messages == []
    unknown = registry.register(trained(resources, adapter_folders[1], "2"))
    ensure_loaded(registry, replicas, unknown, resources.work_folder)
    (warned,) = caplog.messages
    assert warned.startswith("not proved that ")
    assert unknown.serving_name in warned
