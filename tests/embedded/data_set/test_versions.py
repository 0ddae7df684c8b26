import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from lora_assets.embedded.data_set import versions
from lora_assets.embedded.data_set.versions import build
from lora_assets.errors import LoraAssetsError


def _content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def _run(code: str, folder: Path) -> int:
    """Run code in another process, which orders its sets in its own way."""
    program = f"import os, pathlib, signal; from {versions.__package__} import versions; {code}"
    environment = {**os.environ, "PYTHONHASHSEED": "7"}
    command = [sys.executable, "-c", program]
    return subprocess.run(command, cwd=folder, env=environment, check=False).returncode


@pytest.mark.integration
def test_another_process_writes_the_same_bytes(tmp_path: Path) -> None:
    assert _run("versions.build('v1', ['dynamodb', 's3'], pathlib.Path('.'))", tmp_path) == 0
    here = build("v2", ["s3", "dynamodb"], tmp_path)
    assert _content(here.parent / "v1") == _content(here)


def test_building_the_same_again_is_fine_and_other_content_is_refused(tmp_path: Path) -> None:
    folder = build("v1", ["dynamodb"], tmp_path)
    before = _content(folder)
    assert build("v1", ["dynamodb"], tmp_path) == folder
    with pytest.raises(LoraAssetsError, match="other content"):
        build("v1", ["dynamodb"], tmp_path, spoiled=True)
    assert _content(folder) == before
    (folder / "eval.jsonl").unlink()
    with pytest.raises(LoraAssetsError, match="other content"):
        build("v1", ["dynamodb"], tmp_path)


@pytest.mark.parametrize("version", ["../v1", "", ".v1", "a/b", "v1\n", "v 1"])
def test_a_version_that_is_not_a_plain_name_is_refused(tmp_path: Path, version: str) -> None:
    with pytest.raises(LoraAssetsError, match="can't be the name of a data version"):
        build(version, ["dynamodb"], tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.integration
def test_a_build_killed_half_way_leaves_no_version_and_can_be_repeated(tmp_path: Path) -> None:
    killing = "versions.os.fsync = lambda _: os.kill(os.getpid(), signal.SIGKILL);"
    code = f"{killing} versions.build('v1', ['dynamodb'], pathlib.Path('.'))"
    assert _run(code, tmp_path) == -signal.SIGKILL
    assert not (tmp_path / "data" / "processed" / "v1").exists()
    assert build("v1", ["dynamodb"], tmp_path).is_dir()


def test_a_bucket_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("a file where the folder should be")
    with pytest.raises(LoraAssetsError, match="can't be written"):
        build("v1", ["dynamodb"], tmp_path)
