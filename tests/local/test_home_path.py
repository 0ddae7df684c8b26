"""A home whose path means something else in a URL."""

import os
from collections.abc import Mapping
from pathlib import Path

import pytest

from lora_assets.errors import LoraAssetsError
from lora_assets.local.instance import open_instance
from tests.support.commands import Run
from tests.support.remote_dagster import small_data

LAX = ("--max-eval-loss=100", "--max-perplexity=1e9")
SMALL = ("--lora-config=minimal", "--num-epochs=1", "--max-seq-length=200")


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of temporary files, which has Dagster's link to such a home."""
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    return tmp_path / "temporary"


@pytest.mark.parametrize("name", ["100%41", "why?a=b", "a #1 ü's %3F"])
def test_everything_is_kept_in_the_home_and_found_there_again(
    name: str, served: Mapping[str, str], tmp_path: Path, temporary: Path, run: Run
) -> None:
    home = tmp_path / name / "home"
    environment = {**served, "LORA_ASSETS_HOME": str(home)}
    assert run(environment, "data", "build", "--data-version", "1", "--services", "s3")[0] == 0
    small_data(home / "bucket")
    for _ in range(2):
        assert run(environment, "train", *SMALL, *LAX)[0] == 0
    ended, printed = run(environment, "status", "--json")
    assert ended == 0
    assert '"candidate"' in printed
    assert sorted(tmp_path.iterdir()) == sorted([tmp_path / name, temporary])
    assert [each.name for each in (tmp_path / name).iterdir()] == ["home"]
    databases = {str(each.relative_to(home)) for each in home.rglob("*.db")}
    assert {"mlflow.db", "dagster/history/runs.db", "dagster/schedules/schedules.db"} <= databases
    artifacts = home / "mlflow-artifacts" / "vllm-lora-training"
    assert len(list(artifacts.rglob("adapter_model.safetensors"))) == 1


def test_a_link_is_never_followed_in_a_folder_of_somebody_else(
    tmp_path: Path, temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (temporary / "lora-assets-12345").mkdir()
    monkeypatch.setattr(os, "getuid", lambda: 12345)
    with pytest.raises(LoraAssetsError, match="lora-assets-12345 belongs to another user"):
        open_instance(tmp_path / "100%" / "dagster", managed=True)
