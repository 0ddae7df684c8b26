import shutil
from pathlib import Path

import pytest

from lora_assets.errors import LoraAssetsError
from lora_assets.serving import adapter_files
from lora_assets.serving.vllm_plugin.adapters_folder import digest_folder


@pytest.fixture
def adapter(adapter_folders: tuple[Path, ...], tmp_path: Path) -> Path:
    return Path(shutil.copytree(adapter_folders[0], tmp_path / "adapter"))


def test_one_changed_byte_is_refused_by_name(adapter: Path) -> None:
    digest = digest_folder(adapter)
    adapter_files.verify(adapter, digest)
    weights = adapter / adapter_files.WEIGHTS
    weights.write_bytes(weights.read_bytes()[:-1] + b"!")
    with pytest.raises(LoraAssetsError, match=f"expected {digest[:12]}"):
        adapter_files.verify(adapter, digest)


@pytest.mark.parametrize("name", [adapter_files.CONFIG, adapter_files.WEIGHTS])
def test_a_file_that_is_missing_or_cut_off_is_refused(adapter: Path, name: str) -> None:
    content = (adapter / name).read_bytes()
    (adapter / name).write_bytes(content[: len(content) // 2])
    with pytest.raises(LoraAssetsError, match="damaged"):
        adapter_files.inspect(adapter)
    (adapter / name).unlink()
    with pytest.raises(LoraAssetsError, match="lacks a file"):
        adapter_files.inspect(adapter)
