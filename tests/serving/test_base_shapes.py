import json
import re
from pathlib import Path
from typing import Any

import pytest
from safetensors import safe_open

from lora_assets.embedded.server.options import PACKAGED_BASE_MODEL
from lora_assets.serving.base_shapes import base_modules

LINEAR = re.compile(r"(model\.layers\.\d+\.(?:self_attn|mlp)\.\w+)\.weight")


def test_the_modules_are_those_of_the_base_models_own_tensors() -> None:
    with safe_open(str(PACKAGED_BASE_MODEL / "model.safetensors"), framework="numpy") as weights:
        shapes = {n: tuple(weights.get_slice(n).get_shape()) for n in weights.keys()}  # noqa: SIM118  (no mapping)
    linear = {match[1]: shapes[name] for name in shapes if (match := LINEAR.fullmatch(name))}
    assert len(linear) == 4 * 7
    assert base_modules(str(PACKAGED_BASE_MODEL)) == linear


def reconfigured(folder: Path, **changes: Any) -> str:
    config = json.loads((PACKAGED_BASE_MODEL / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **changes}))
    return str(folder)


def test_a_head_size_that_is_not_given_is_the_hidden_sizes_share(tmp_path: Path) -> None:
    modules = base_modules(reconfigured(tmp_path, head_dim=None, num_attention_heads=8))
    assert modules is not None
    assert modules["model.layers.3.self_attn.q_proj"] == (256, 256)
    assert modules["model.layers.3.self_attn.k_proj"] == (64, 256)


def test_heads_may_be_wider_together_than_the_hidden_size(tmp_path: Path) -> None:
    modules = base_modules(reconfigured(tmp_path, head_dim=128))
    assert modules is not None
    assert modules["model.layers.0.self_attn.o_proj"] == (256, 512)


@pytest.mark.parametrize("name", ["mistralai/Mistral-7B-v0.1", "", "/nowhere"])
def test_a_base_model_that_is_no_local_folder_is_out_of_sight(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    reconfigured(tmp_path)  # What lies in the working folder is not meant.
    assert base_modules(name) is None


def test_another_architecture_is_left_to_the_server(tmp_path: Path) -> None:
    assert base_modules(reconfigured(tmp_path, model_type="gpt2")) is None
