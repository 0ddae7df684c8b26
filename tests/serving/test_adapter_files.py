import shutil
from pathlib import Path

import pytest

from lora_assets.errors import LoraAssetsError
from lora_assets.serving import adapter_files
from lora_assets.serving.vllm_plugin.adapters_folder import digest_folder


@pytest.fixture
def adapter(adapter_folders: tuple[Path, ...], tmp_path: Path) -> Path:
    return Path(shutil.copytree(adapter_folders[0], tmp_path / "adapter"))


def test_the_digest_is_of_names_and_bytes_and_nothing_else(adapter: Path, tmp_path: Path) -> None:
    digest = digest_folder(adapter)
    copy = Path(shutil.copytree(adapter, tmp_path / "elsewhere"))
    assert digest_folder(copy) == digest
    (copy / adapter_files.WEIGHTS).rename(copy / "weights.safetensors")
    assert digest_folder(copy) != digest


def test_one_changed_byte_is_refused_by_name(adapter: Path) -> None:
    digest = digest_folder(adapter)
    adapter_files.verify(adapter, digest)
    weights = adapter / adapter_files.WEIGHTS
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    with pytest.raises(LoraAssetsError, match=f"expected {digest[:12]}"):
        adapter_files.verify(adapter, digest)


def test_a_pickle_beside_the_weights_is_refused(adapter: Path) -> None:
    (adapter / "adapter_model.bin").write_bytes(b"\x80\x04.")
    with pytest.raises(LoraAssetsError, match=r"adapter_model\.bin"):
        adapter_files.inspect(adapter)


def test_a_link_in_place_of_a_file_is_refused(adapter: Path, tmp_path: Path) -> None:
    (adapter / adapter_files.CONFIG).rename(tmp_path / "config.json")
    (adapter / adapter_files.CONFIG).symlink_to(tmp_path / "config.json")
    with pytest.raises(LoraAssetsError, match=r"adapter_config\.json"):
        adapter_files.inspect(adapter)


@pytest.mark.parametrize("name", [adapter_files.CONFIG, adapter_files.WEIGHTS])
def test_a_file_that_is_missing_or_cut_off_is_refused(adapter: Path, name: str) -> None:
    content = (adapter / name).read_bytes()
    (adapter / name).write_bytes(content[: len(content) // 2])
    with pytest.raises(LoraAssetsError, match="damaged"):
        adapter_files.inspect(adapter)
    (adapter / name).unlink()
    with pytest.raises(LoraAssetsError, match="lacks a file"):
        adapter_files.inspect(adapter)
