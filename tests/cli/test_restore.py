"""restore: what a replica's init container puts into its folder before the server starts."""

import json
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from lora_assets.cli.restore import restore_adapters
from lora_assets.records.model_version import ModelVersion
from lora_assets.records.served import CANDIDATE_SLOT, LIVE_SLOT
from lora_assets.resources.registry import Registry
from lora_assets.serving.adapter_files import WEIGHTS
from lora_assets.serving.replica_folder import shared_folder
from lora_assets.serving.vllm_plugin.adapters_folder import contents, slots
from lora_assets.serving.vllm_plugin.slots import named_folder
from lora_assets.stack_resources import Resources
from tests.support.commands import Run, register, spoil

EMPTY: Mapping[str, Mapping[str, str]] = {"digests": {}, "names": {}, "slots": {}, "foreign": {}}


@pytest.fixture
def environment(no_server: Mapping[str, str]) -> Mapping[str, str]:
    return no_server


@pytest.fixture
def adapters(environment: Mapping[str, str]) -> Path:
    return Path(environment["ADAPTERS_DIR"])


def test_before_the_first_promotion_it_ends_well_says_so_and_brings_the_plugin_of_vllm(
    run: Run, environment: Mapping[str, str], adapters: Path, tmp_path: Path
) -> None:
    ended, printed = run(environment, "restore", "--plugin-dir", str(tmp_path / "plugin"))
    assert ended == 0
    assert (tmp_path / "plugin" / "lora_assets" / "engines" / "vllm_plugin.py").is_file()
    assert "no live adapter yet" in printed
    assert contents(adapters) == EMPTY


def test_bytes_names_and_slots_of_the_aliases_are_put_back(
    run: Run, environment: Mapping[str, str], resources: Resources, adapters: Path,
    adapter_folders: tuple[Path, ...],
) -> None:  # fmt: skip
    live = register(resources, adapter_folders[0], "live")
    staged = register(resources, adapter_folders[1], "staged", "candidate")
    previous = register(resources, adapter_folders[2], "previous")
    register(resources, adapter_folders[3], "eval-failed")
    ended, printed = run(environment, "restore")
    assert ended == 0
    versions = (live, staged, previous)
    told = json.loads(run(environment, "restore", "--json")[1])
    assert told["restored"] == {each.serving_name: each.digest for each in versions}
    assert all(f"{each.serving_name}: {each.digest[:12]}" in printed for each in versions)
    assert contents(adapters) == {
        "digests": {each.digest: each.digest for each in versions},
        "names": {each.serving_name: each.digest for each in versions},
        "slots": {LIVE_SLOT: live.serving_name, CANDIDATE_SLOT: staged.serving_name},
        "foreign": {},
    }
    answering = named_folder(adapters, slots(adapters)[LIVE_SLOT])
    assert answering == adapters / live.digest


def test_what_is_there_is_not_fetched_again_and_what_is_damaged_is(
    run: Run, environment: Mapping[str, str], resources: Resources, adapters: Path,
    adapter_folders: tuple[Path, ...], tmp_path: Path,
) -> None:  # fmt: skip
    live = register(resources, adapter_folders[0], "live")
    whole = {live.digest: live.digest}
    for _ in range(2):
        assert run(environment, "restore")[0] == 0
        assert contents(adapters)["digests"] == whole
        spoil(adapters / live.digest / WEIGHTS)
    assert run(environment, "restore")[0] == 0
    shutil.rmtree(tmp_path / "mlflow-artifacts")
    assert run(environment, "restore")[0] == 0
    assert contents(adapters)["digests"] == whole


def test_what_a_promotion_changed_in_between_is_put_there_too(
    resources: Resources, adapters: Path, adapter_folders: tuple[Path, ...],
) -> None:  # fmt: skip
    register(resources, adapter_folders[0], "live")
    later = register(resources, adapter_folders[1], "staged")

    class Promoted(Registry):
        def download(self, version: ModelVersion, to: Path) -> Path:
            resources.registry.set_alias("live", later)
            return super().download(version, to)

    slow = replace(resources, registry=Promoted(**dict(resources.registry)))
    restore_adapters(slow, shared_folder(str(adapters)))
    assert slots(adapters)[LIVE_SLOT] == later.serving_name


def test_bytes_that_changed_in_the_registry_are_refused_by_name_and_leave_nothing(
    run: Run, environment: Mapping[str, str], resources: Resources, adapters: Path,
    adapter_folders: tuple[Path, ...], tmp_path: Path,
) -> None:  # fmt: skip
    live = register(resources, adapter_folders[0], "live")
    (stored,) = tmp_path.glob(f"mlflow-artifacts/**/{WEIGHTS}")
    spoil(stored)
    ended, _ = run(environment, "restore")
    assert isinstance(ended, str)
    assert ended.startswith("error: ")
    assert f"expected {live.digest[:12]}" in ended
    assert "\n" not in ended
    assert contents(adapters) == EMPTY
    assert not list((tmp_path / "work").iterdir())
