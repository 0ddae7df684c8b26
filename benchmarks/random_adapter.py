"""An adapter with random weights, which answers in a way of its own."""

from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

from lora_assets.embedded.server.options import PACKAGED_BASE_MODEL
from lora_assets.settings import EMBEDDED_BASE_NAME


def save_random_adapter(folder: Path, seed: int) -> None:
    """Save one of the specification's standard profile (r 8, alpha 16 on q, k, v, o)."""
    torch.manual_seed(seed)
    base = AutoModelForCausalLM.from_pretrained(PACKAGED_BASE_MODEL, dtype=torch.float32)
    targets = ["q_proj", "k_proj", "v_proj", "o_proj"]
    model = get_peft_model(base, LoraConfig(r=8, lora_alpha=16, target_modules=targets))
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.02)
    model.peft_config["default"].base_model_name_or_path = EMBEDDED_BASE_NAME
    model.save_pretrained(folder)
    (folder / "README.md").unlink()
