import json
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from lora_assets.errors import LoraAssetsError
from lora_assets.serving import adapter_files


@pytest.fixture
def adapter(adapter_folders: tuple[Path, ...], tmp_path: Path) -> Path:
    return Path(shutil.copytree(adapter_folders[0], tmp_path / "adapter"))


@pytest.mark.parametrize("name", [adapter_files.CONFIG, adapter_files.WEIGHTS])
def test_a_file_that_is_missing_or_cut_off_is_refused(adapter: Path, name: str) -> None:
    content = (adapter / name).read_bytes()
    (adapter / name).write_bytes(content[: len(content) // 2])
    with pytest.raises(LoraAssetsError, match="damaged"):
        adapter_files.inspect(adapter)
    (adapter / name).unlink()
    with pytest.raises(LoraAssetsError, match="lacks a file"):
        adapter_files.inspect(adapter)


def refused(adapter: Path) -> str:
    with pytest.raises(LoraAssetsError) as raised:
        adapter_files.inspect(adapter)
    with pytest.raises(LoraAssetsError, match=re.escape(raised.value.cause)):
        adapter_files.refuse_unservable(adapter, 32)
    return raised.value.cause


def test_an_adapter_that_is_larger_than_any_is_refused_before_it_is_read(
    adapter: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights, config = adapter / adapter_files.WEIGHTS, adapter / adapter_files.CONFIG
    content = weights.read_bytes()
    with weights.open("r+b") as file:
        file.truncate(100 << 30)  # Sparse: it takes no room.
    assert "adapter_model.safetensors of 107374182400 bytes, more than" in refused(adapter)
    header = 9 << 20
    weights.write_bytes(header.to_bytes(8, "little") + b" " * header)
    assert f"a header of {header} bytes, more than" in refused(adapter)
    weights.write_bytes(content)
    monkeypatch.setattr(adapter_files, "MOST_TENSORS", 3)
    assert "tensors, more than 3" in refused(adapter)
    config.write_bytes(b" " * (2 << 20))
    assert "adapter_config.json of 2097152 bytes, more than" in refused(adapter)


@pytest.mark.parametrize("rank", [0, -5])
def test_a_rank_below_one_is_refused(adapter: Path, rank: int) -> None:
    config = adapter / adapter_files.CONFIG
    config.write_text(json.dumps({**json.loads(config.read_text()), "r": rank}))
    assert "r: Input should be greater than 0" in refused(adapter)


LAYER = "base_model.model.model.layers.0.self_attn.q_proj.lora_"
A, B = f"{LAYER}A.weight", f"{LAYER}B.weight"


@pytest.mark.parametrize(
    ("change", "cause"),
    [
        ({A: None}, f"{B} has no lora_A beside it"),
        ({B: None}, f"{A} has no lora_B beside it"),
        ({B: np.zeros((64, 16), np.float32)}, f"{A} has rank 8 in A and 16 in B"),
        ({A: np.zeros((8, 64), np.int8)}, f"{A} holds I8, not floating-point numbers"),
        ({"x.lora_A.weight": np.zeros((), np.float32)}, "x.lora_A.weight has shape []"),
        (None, "foo.bar is no LoRA of a linear layer"),
        *(
            (
                {A: np.zeros(shape, np.float32)},
                f"{A} has shape {list(shape)}, which is not a matrix",
            )
            for shape in ((), (8,), (0, 8), (2, 2, 2))
        ),
    ],
)
def test_tensors_that_are_no_lora_are_refused_by_name(
    adapter: Path, change: Mapping[str, NDArray[Any] | None] | None, cause: str
) -> None:
    weights = adapter / adapter_files.WEIGHTS
    changed = {**load_file(weights), **change} if change else {"foo.bar": np.zeros(4, np.float32)}
    save_file({name: each for name, each in changed.items() if each is not None}, weights)
    assert cause in refused(adapter)
