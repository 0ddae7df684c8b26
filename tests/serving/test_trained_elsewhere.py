"""Adapters as other trainers save them: taken as they were trained, or refused with the reason."""

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import LoraConfig, PeftModel
from safetensors.numpy import load_file, save_file
from safetensors.torch import save_file as save_torch
from transformers import AutoModelForCausalLM

from lora_assets.embedded.server.options import PACKAGED_BASE_MODEL
from lora_assets.errors import LoraAssetsError
from lora_assets.serving.adapter_files import CONFIG, PICKLED, WEIGHTS, inspect
from lora_assets.serving.base_shapes import base_modules
from lora_assets.serving.trained_elsewhere import rewrite
from tests.support.random_adapters import save_adapter

BASE = "mistralai/Mistral-7B-v0.1"
SHAPES = {f"model.layers.{layer}.self_attn.q_proj": (6, 4) for layer in range(2)}
PREFIX = "base_model.model"
Q0 = f"{PREFIX}.model.layers.0.self_attn.q_proj"


def tensors(rank: int = 2, modules: Mapping[str, tuple[int, int]] = SHAPES) -> dict[str, Any]:
    made = {}
    for name, (out, into) in modules.items():
        made[f"{PREFIX}.{name}.lora_A.weight"] = np.ones((rank, into), np.float32)
        made[f"{PREFIX}.{name}.lora_B.weight"] = np.ones((out, rank), np.float32)
    return made


def save(folder: Path, weights: Mapping[str, Any] | None = None, **config: Any) -> Path:
    """An adapter of two modules, as peft saves one; `config` is what its configuration changes."""
    folder.mkdir(exist_ok=True)
    known = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": ["q_proj"]}
    said = {**known, "base_model_name_or_path": BASE, "megatron_core": "megatron.core", **config}
    (folder / CONFIG).write_text(json.dumps(said))
    save_file(tensors() if weights is None else dict(weights), folder / WEIGHTS)
    return folder


def take(
    folder: Path, modules: Mapping[str, tuple[int, int]] | None = SHAPES, **options: Any
) -> Path:
    to = folder.with_name(f"{folder.name}-taken")
    rewrite(folder, to, (BASE, "/models/base"), modules, 8, **options)
    return to


def test_weights_keep_their_bytes_and_the_configuration_only_what_serving_needs(
    tmp_path: Path,
) -> None:
    folder = save(
        tmp_path / "unsloth",
        base_model_name_or_path="/home/me/models/mistral-7b-V0.1/",
        use_rslora=True,
        target_modules=r".*\.(q_proj|v_proj)",
        megatron_config={"hidden_size": 1},
        megatron_core="os",
        auto_mapping={"parent_library": "os", "unsloth_fixed": True},
        init_lora_weights="gaussian",
    )
    taken = take(folder)
    assert (taken / WEIGHTS).read_bytes() == (folder / WEIGHTS).read_bytes()
    assert json.loads((taken / CONFIG).read_text()) == {
        **{"base_model_name_or_path": BASE, "bias": "none", "inference_mode": True},
        **{"lora_alpha": 4.0, "lora_dropout": 0.0, "peft_type": "LORA", "r": 2},
        **{"target_modules": ["q_proj"], "task_type": "CAUSAL_LM", "use_rslora": True},
    }
    assert inspect(taken).modules == SHAPES


LM_HEAD = f"{PREFIX}.lm_head"
REFUSED: Mapping[str, tuple[Mapping[str, Any], Mapping[str, Any] | None]] = {
    "DoRA (use_dora)": ({"use_dora": True}, None),
    "(modules_to_save)": ({"modules_to_save": ["lm_head"]}, None),
    "biases (bias, lora_bias)": ({"bias": "lora_only"}, None),
    "(trainable_token_indices)": ({"trainable_token_indices": [1]}, None),
    "(init_lora_weights=pissa_niter_4)": ({"init_lora_weights": "pissa_niter_4"}, None),
    "(init_lora_weights=of-next-year)": ({"init_lora_weights": "of-next-year"}, None),
    "(alora_invocation_tokens)": ({"alora_invocation_tokens": [1]}, None),
    "(layer_replication)": ({"layer_replication": [[0, 1]]}, None),
    'kasa_config={"beta": 1}': ({"kasa_config": {"beta": 1}}, None),
    "(fan_in_fan_out)": ({"fan_in_fan_out": True}, None),
    "task type SEQ_CLS": ({"task_type": "SEQ_CLS"}, None),
    "is a LOHA of peft's": ({"peft_type": "LOHA"}, None),
    "rank 16, above the server's 8": ({"r": 16}, tensors(16)),
    f"trained embeddings: {LM_HEAD}.weight": (
        {}, {**tensors(), f"{LM_HEAD}.weight": np.ones((2, 2), np.float32)},
    ),
    f"trained embeddings: {LM_HEAD}.lora_A": (
        {"target_modules": ["q_proj", "lm_head"]}, {**tensors(), **tensors(2, {"lm_head": (9, 4)})},
    ),
    "lora_A.default.weight, which is no LoRA": (
        {}, {f"{Q0}.lora_A.default.weight": np.ones((2, 2), np.float32)},
    ),
    "model.layers.1.self_attn.q_proj is missing": (
        {}, tensors(2, dict(list(SHAPES.items())[:1])),
    ),
    "q_proj is none of the target_modules": ({"target_modules": ["v_proj"]}, None),
    "the base model has no module model.layers.7": (
        {}, {**tensors(), **tensors(2, {"model.layers.7.self_attn.q_proj": (6, 4)})},
    ),
    "is (6, 4) in the base model and (5, 4)": (
        {}, tensors(2, {name: (5, 4) for name in SHAPES}),
    ),
    "has rank 2 in A and 2 in B, where adapter_config.json says 4": ({"r": 4}, None),
    "lora_A.weight holds NaN or infinity": (
        {}, {**tensors(), f"{Q0}.lora_A.weight": np.full((2, 4), np.nan, np.float32)},
    ),
    f"{Q0}.lora_B.weight has shape []": (
        {}, {**tensors(), f"{Q0}.lora_B.weight": np.ones((), np.float32)},
    ),
    "r: Input should be greater than 0": ({"r": 0}, None),
    "lora_alpha: Input should be a finite number": ({"lora_alpha": float("nan")}, None),
    "'(' is no pattern": ({"alpha_pattern": {"(": 1}}, None),
    "')' is no pattern": ({"rank_pattern": {")": 2}}, None),
    f"{Q0}.lora_A.weight has rank 2 in A and 2 in B, where adapter_config.json says 4": (
        {"rank_pattern": {"q_proj": 4}}, None,
    ),
    "alpha_pattern.q_proj: Input should be less than or equal to 1000000": (
        {"alpha_pattern": {"q_proj": 1e300}}, None,
    ),
    "lora_B.weight is too large for float32 by its alpha": (
        {"alpha_pattern": {"q_proj": 1e6}},
        {name: each * np.float32(1e35) for name, each in tensors().items()},
    ),
    "holds no tensor": ({}, {}),
    "trained on mistralai/Mistral-7B-v0.3, and": (
        {"base_model_name_or_path": "mistralai/Mistral-7B-v0.3"}, None,
    ),
    "give --trained-on unsloth/mistral": (
        {"base_model_name_or_path": "unsloth/mistral-7b-v0.1-bnb-4bit"}, None,
    ),
    f"Give --trained-on {BASE}.": ({"base_model_name_or_path": None}, None),
}  # fmt: skip


@pytest.mark.parametrize("reason", REFUSED)
def test_what_would_be_served_otherwise_than_it_was_trained_is_refused_in_one_line(
    tmp_path: Path, reason: str
) -> None:
    config, weights = REFUSED[reason]
    folder = save(tmp_path / "adapter", weights, **config)
    with pytest.raises(LoraAssetsError, match=re.escape(reason)) as refused:
        take(folder)
    assert "\n" not in str(refused.value)
    assert not folder.with_name("adapter-taken").exists()


def pickled(folder: Path) -> None:
    (folder / WEIGHTS).rename(folder / PICKLED)


def cut(folder: Path) -> None:
    (folder / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes()[:-4])


def deep(folder: Path) -> None:
    (folder / CONFIG).write_text("[" * 10_000)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (pickled, "weights are pickled (adapter_model.bin), and a pickle runs what is in it. Save"),
        (cut, "The adapter is damaged: adapter_model.safetensors: "),
        (deep, "The adapter is damaged: adapter_config.json: "),
        (lambda folder: (folder / CONFIG).unlink(), "The adapter has no adapter_config.json"),
    ],
)
def test_files_that_are_not_what_they_should_be_are_refused(
    tmp_path: Path, change: Callable[[Path], None], reason: str
) -> None:
    folder = save(tmp_path / "adapter")
    change(folder)
    with pytest.raises(LoraAssetsError, match=re.escape(reason)):
        take(folder)


def test_another_name_of_the_base_model_is_taken_from_who_registers_it(tmp_path: Path) -> None:
    quantised = "unsloth/mistral-7b-v0.1-bnb-4bit"
    folder = save(tmp_path / "a", base_model_name_or_path=quantised)
    assert inspect(take(folder, trained_on=quantised)).base_model == BASE
    folder = save(tmp_path / "b", base_model_name_or_path=None)
    assert inspect(take(folder, trained_on=BASE)).base_model == BASE
    cached = "/cache/hub/models--mistralai--Mistral-7B-v0.1/snapshots/26bca36bde"
    assert take(save(tmp_path / "c", base_model_name_or_path=cached)).is_dir()
    with pytest.raises(LoraAssetsError, match="bit, not on other"):
        take(save(tmp_path / "d", base_model_name_or_path=quantised), trained_on="other")


def test_without_the_base_model_a_layer_lacks_what_the_others_have(tmp_path: Path) -> None:
    modules = {**SHAPES, "model.layers.1.self_attn.v_proj": (2, 4)}
    weights = tensors(2, modules)
    folder = save(tmp_path / "a", weights, target_modules=["q_proj", "v_proj"])
    with pytest.raises(LoraAssetsError, match=r"layers\.0\.self_attn\.v_proj is missing"):
        take(folder, None)
    one_layer = {"model.layers.1.self_attn.q_proj": (6, 4)}
    folder = save(tmp_path / "b", tensors(2, one_layer), layers_to_transform=[1])
    assert inspect(take(folder, SHAPES)).modules == one_layer


def test_bfloat16_is_read_and_its_infinity_found(tmp_path: Path) -> None:
    folder = save(tmp_path / "adapter", alpha_pattern={"q_proj": 3})
    half = {name: torch.from_numpy(each).bfloat16() for name, each in tensors().items()}
    save_torch(half, folder / WEIGHTS)
    folded = load_file(take(folder) / WEIGHTS)
    assert folded[f"{Q0}.lora_B.weight"].tolist() == [[1.5, 1.5]] * 6
    half[f"{Q0}.lora_B.weight"][0, 0] = torch.inf
    save_torch(half, folder / WEIGHTS)
    with pytest.raises(LoraAssetsError, match=r"lora_B\.weight holds NaN or infinity"):
        take(folder)


@pytest.mark.parametrize("use_rslora", [False, True])
def test_patterns_of_rank_and_alpha_become_one_rank_that_answers_the_same(
    tmp_path: Path, use_rslora: bool
) -> None:
    config = LoraConfig(
        r=4,
        lora_alpha=6,
        target_modules=["q_proj", "v_proj", "down_proj"],
        rank_pattern={"down_proj": 8, r"model.layers.0.self_attn.q_proj": 2},
        alpha_pattern={r"layers\.[01]\..*v_proj": 10},
        use_rslora=use_rslora,
    )
    folder = save_adapter(tmp_path / "adapter", config, seed=5)
    taken = take(
        folder, base_modules(str(PACKAGED_BASE_MODEL)), trained_on=str(PACKAGED_BASE_MODEL)
    )
    said = json.loads((taken / CONFIG).read_text())
    assert (said["r"], said["lora_alpha"], "rank_pattern" in said) == (8, 8, False)

    def logits(adapter: Path | None) -> torch.Tensor:
        base = AutoModelForCausalLM.from_pretrained(PACKAGED_BASE_MODEL, dtype=torch.float32)
        model = base if adapter is None else PeftModel.from_pretrained(base, str(adapter))
        with torch.no_grad():
            answer: torch.Tensor = model(torch.arange(5, 40)[None]).logits
        return answer

    trained = logits(folder)
    assert torch.allclose(logits(taken), trained, atol=1e-4)
    assert not torch.allclose(logits(None), trained, atol=0.1)
