"""An adapter is fetched whole, or not begun."""

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from lora_assets.errors import LoraAssetsError
from lora_assets.resources.adapter_source import fetch_adapter, fetch_source
from lora_assets.serving import adapter_files
from lora_assets.serving.adapter_files import CONFIG, PICKLED, WEIGHTS


@pytest.mark.parametrize("name", [CONFIG, WEIGHTS, PICKLED])
@pytest.mark.parametrize("fetch", [fetch_source, fetch_adapter])
def test_what_is_larger_than_any_adapter_is_refused_before_a_byte_is_copied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    fetch: Callable[[str, str, Path], Sequence[str]], name: str,
) -> None:  # fmt: skip
    (source := tmp_path / "source").mkdir()
    to, mlflow = tmp_path / "to", f"sqlite:///{tmp_path}/mlflow.db"
    for each in (CONFIG, WEIGHTS, PICKLED):
        (source / each).write_bytes(b"{}")
    fetch(str(source), mlflow, tmp_path / "fetched")
    monkeypatch.setattr(adapter_files, "MOST_BYTES", {**adapter_files.MOST_BYTES, name: 99})
    (source / name).write_bytes(b"x" * 100)
    with pytest.raises(LoraAssetsError, match=f"has {name} of 100 bytes, more than 99"):
        fetch(str(source), mlflow, to)
    assert not to.is_dir() or not list(to.iterdir())
