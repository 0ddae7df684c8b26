"""Adapters with random weights, each of which answers in a way of its own."""

from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

from lora_assets.embedded.server.options import PACKAGED_BASE_MODEL
from lora_assets.settings import EMBEDDED_BASE_NAME

ATTENTION = ["q_proj", "k_proj", "v_proj", "o_proj"]


def save_adapter(
    folder: Path,
    config: LoraConfig,
    seed: int,
    std: float = 0.08,
    base_model: Path = PACKAGED_BASE_MODEL,
) -> Path:
    """Save a safetensors adapter on a base model as `folder`, and return that."""
    torch.manual_seed(seed)
    base = AutoModelForCausalLM.from_pretrained(base_model, dtype=torch.float32)
    model = get_peft_model(base, config)
    for name, weight in model.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(weight, std=std)
    model.save_pretrained(folder)
    (folder / "README.md").unlink()
    return folder


def save_standard_adapter(folder: Path, seed: int) -> Path:
    """Save an adapter of the specification's standard profile."""
    config = LoraConfig(r=8, lora_alpha=16, target_modules=ATTENTION)
    config.base_model_name_or_path = EMBEDDED_BASE_NAME
    return save_adapter(folder, config, seed)
