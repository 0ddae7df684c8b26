"""adopt: a registry that is there already becomes ours, and nothing in it moves."""

import json
import shutil
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from peft import LoraConfig

from lora_assets.errors import LoraAssetsError
from lora_assets.records.served import LIVE_SLOT
from lora_assets.serving.adapter_files import CONFIG, PICKLED, WEIGHTS
from lora_assets.serving.vllm_plugin.adapters_folder import contents, digest_folder
from lora_assets.stack_resources import Resources
from tests.support.commands import Run
from tests.support.random_adapters import save_adapter
from tests.support.scripts_registry import ARTIFACTS, register_by_script

Script = Callable[..., int]
ON_2 = {"data.version": "2", "data.source": "s3://my-vllm-data/data/processed/2"}


@pytest.fixture
def environment(no_server: Mapping[str, str]) -> Mapping[str, str]:
    return no_server


@pytest.fixture
def script(resources: Resources) -> Script:
    return partial(register_by_script, resources.registry, tags=ON_2)


def model(resources: Resources) -> Any:
    registry = resources.registry
    return MlflowClient(registry.tracking_uri).get_registered_model(registry.model_name)


def test_others_versions_stop_nothing_but_what_compares_with_them_or_replaces_them(
    run: Run, environment: Mapping[str, str], resources: Resources, script: Script,
    adapter_folders: tuple[Path, ...],
) -> None:  # fmt: skip
    script(adapter_folders[0], "live", "champion")
    registry = resources.registry
    assert registry.aliases() == {}
    assert registry.others() == {"live": 1, "champion": 1}
    ended, printed = run(environment, "restore")
    assert ended == 0
    assert "live is passed over: version 1 of mistral-7b-lora is not ours" in printed
    assert "not ours" in json.loads(run(environment, "restore", "--json")[1])["passed_over"]["live"]
    with pytest.raises(LoraAssetsError, match="'lora-assets adopt --model-version 1'"):
        registry.current_live()
    ended, _ = run(environment, "promote", "--source-alias", "champion")
    assert str(ended).startswith("error: Alias 'champion' of mistral-7b-lora is not one that")
    ended, _ = run(environment, "rollback")
    assert str(ended).startswith("error: Alias 'previous' of mistral-7b-lora is not set")


def test_what_is_adopted_is_restored_and_nothing_moves(
    run: Run, environment: Mapping[str, str], resources: Resources, script: Script,
    adapter_folders: tuple[Path, ...], tmp_path: Path,
) -> None:  # fmt: skip
    digest = digest_folder(adapter_folders[0])
    folder = Path(shutil.copytree(adapter_folders[0], tmp_path / "theirs"))
    (folder / "README.md").write_text("ours since 2024")
    (folder / "training_args.bin").write_bytes(b"\x80\x04.")
    (folder / "checkpoint-8").mkdir()
    (folder / "checkpoint-8" / "optimizer.pt").write_bytes(b"\x80\x04.")
    script(folder, "live")
    script(adapter_folders[1])
    script(adapter_folders[2], "candidate", "champion", tags={})
    before, files = model(resources).aliases, sorted((tmp_path / ARTIFACTS).rglob("*"))
    ended, printed = run(environment, "adopt", "--model-version", "3", "--data-version", "3")
    assert (ended, "data version 3" in printed) == (0, True)
    ended, printed = run(environment, "adopt")
    assert ended == 0
    beside = "left behind: README.md, checkpoint-8, training_args.bin"
    assert f"version 1: digest {digest[:12]}, data version 2; {beside}" in printed
    assert model(resources).aliases == before
    assert sorted((tmp_path / ARTIFACTS).rglob("*")) == files
    live = resources.registry.current_live()
    assert live is not None
    assert (live.version, live.digest, live.data_version) == (1, digest, "2")
    assert set(resources.registry.aliases()) == {"live", "candidate"}
    assert resources.registry.others() == {"champion": 3}
    for again in ((), ("--model-version", "1"), ("--model-version", "1", "--data-version", "2")):
        ended, printed = run(environment, "adopt", *again)
        assert (ended, printed) == (0, "adopt: nothing to do\n")
    ended, _ = run(environment, "adopt", "--model-version", "1", "--data-version", "9")
    assert "is ours, of data version 2, not 9" in str(ended)
    ended, _ = run(environment, "deploy", "--adapter-source", "version:1")
    assert "Version 1 was adopted: it can be live or previous" in str(ended)
    assert run(environment, "restore")[0] == 0
    adapters = contents(Path(environment["ADAPTERS_DIR"]))
    assert adapters["digests"] == {digest: digest}
    assert adapters["slots"] == {LIVE_SLOT: live.serving_name}


def changed(**settings: Any) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        shutil.rmtree(folder)
        save_adapter(folder, LoraConfig(**{"target_modules": ["q_proj"], **settings}), seed=1)

    return change


def pickled(folder: Path) -> None:
    (folder / WEIGHTS).rename(folder / PICKLED)


def nothing(folder: Path) -> None:
    for name in (CONFIG, WEIGHTS):
        (folder / name).unlink()
    (folder / "README.md").touch()


@pytest.mark.parametrize(
    ("change", "cause"),
    [
        (changed(use_dora=True), "it has DoRA (use_dora)"),
        (changed(r=8, rank_pattern={"q_proj": 64}), "rank 64, above the server's 32"),
        (pickled, "holds 'adapter_model.bin', which is not part of a safetensors adapter"),
        (nothing, "There is no adapter in runs:/"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_vllm_cannot_serve_is_named_with_the_reason_and_the_others_are_adopted(
    run: Run, environment: Mapping[str, str], resources: Resources, script: Script,
    adapter_folders: tuple[Path, ...], tmp_path: Path, change: Callable[[Path], None], cause: str,
) -> None:  # fmt: skip
    folder = Path(shutil.copytree(adapter_folders[0], tmp_path / "theirs"))
    change(folder)
    script(folder, "live")
    script(adapter_folders[1], "previous")
    ended, printed = run(environment, "adopt", "--json")
    assert str(ended).startswith("error: version 1 of mistral-7b-lora is not adopted: ")
    assert cause in str(ended)
    assert "\n" not in str(ended)
    found = json.loads(printed)
    assert [each["version"] for each in found["adopted"]] == [2]
    assert cause in found["refused"]["1"]
    assert set(resources.registry.aliases()) == {"previous"}
    assert not list((tmp_path / "work").iterdir())


@pytest.mark.parametrize(
    ("arguments", "cause"),
    [
        ((), "has the tag 'data.version'"),
        (("--model-version", "1", "--data-version", "a/b"), "can't be the name of a data version"),
        (("--model-version", "9"), "has no version 9"),
        (("--data-version", "2"), "--data-version needs --model-version."),
    ],
)
def test_a_version_whose_data_nobody_names_is_refused_in_one_line(
    run: Run, environment: Mapping[str, str], resources: Resources, script: Script,
    adapter_folders: tuple[Path, ...], arguments: tuple[str, ...], cause: str,
) -> None:  # fmt: skip
    script(adapter_folders[0], "live", tags={})
    ended, _ = run(environment, "adopt", *arguments)
    assert cause in str(ended)
    assert "\n" not in str(ended)
    assert resources.registry.aliases() == {}


def test_a_version_whose_run_is_gone_is_adopted_by_the_data_version_that_is_given(
    run: Run,
    environment: Mapping[str, str],
    resources: Resources,
    adapter_folders: tuple[Path, ...],
) -> None:
    registry = resources.registry
    client = MlflowClient(registry.tracking_uri)
    client.create_registered_model(registry.model_name)
    client.create_model_version(registry.model_name, adapter_folders[0].as_uri(), "0" * 32)
    ended, printed = run(environment, "adopt", "--model-version", "1", "--data-version", "1")
    assert (ended, "version 1: digest " in printed) == (0, True)
