"""What tells two base models apart."""

from pathlib import Path

import huggingface_hub
import pytest
from huggingface_hub.errors import LocalEntryNotFoundError

from lora_assets.errors import LoraAssetsError
from lora_assets.training.base_identity import base_identity

FILES = ("model.safetensors", "config.json", "tokenizer.json")


@pytest.fixture
def base(tmp_path: Path) -> Path:
    for name in FILES:
        (tmp_path / name).write_text(name)
    return tmp_path


@pytest.mark.parametrize("name", FILES)
def test_a_byte_of_a_file_that_counts_is_another_base(base: Path, name: str) -> None:
    before = base_identity(str(base))
    (base / "README.md").write_text("about it")
    assert base_identity(str(base)) == before
    (base / name).write_text(f"{name}!")
    assert base_identity(str(base)) != before


def test_a_name_on_the_hub_is_the_commit_that_it_stands_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def cached(name: str, file: str, revision: str) -> str:
        return f"/cache/models--{name.replace('/', '--')}/snapshots/0f1e2d-{revision}/{file}"

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", cached)
    found = [base_identity(f"org/model{at}") for at in ("", "@v1")]
    assert found == ["0f1e2d-main", "0f1e2d-v1"]


def test_a_name_that_the_hub_does_not_give_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing(name: str, file: str, revision: str) -> str:
        raise LocalEntryNotFoundError("no connection")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", nothing)
    with pytest.raises(LoraAssetsError, match=r"'org/model' is no folder.*\(no connection\)"):
        base_identity("org/model")
