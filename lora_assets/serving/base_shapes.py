"""The base models that are taken, and their linear modules, from their configuration."""

import json
from collections.abc import Mapping
from pathlib import Path

ARCHITECTURES = ("mistral", "llama", "qwen2")
"""What transformers calls them (`model_type`): they have the same modules by name."""


def base_modules(base_model: str) -> Mapping[str, tuple[int, int]] | None:
    """Each decoder layer's linear modules by path, (out, in).

    None where `base_model` is no local folder (a hub's name: its configuration may need a
    token that a deployment has not got) or is of another architecture.
    """
    path = Path(base_model) / "config.json"
    if not base_model or not path.is_file():
        return None
    config = json.loads(path.read_bytes())
    if config["model_type"] not in ARCHITECTURES:
        return None
    hidden, inner = config["hidden_size"], config["intermediate_size"]
    head = config.get("head_dim") or hidden // config["num_attention_heads"]
    heads = config["num_attention_heads"]
    queries, keys = heads * head, config.get("num_key_value_heads", heads) * head
    shapes = {
        "self_attn.q_proj": (queries, hidden),
        "self_attn.k_proj": (keys, hidden),
        "self_attn.v_proj": (keys, hidden),
        "self_attn.o_proj": (hidden, queries),
        "mlp.gate_proj": (inner, hidden),
        "mlp.up_proj": (inner, hidden),
        "mlp.down_proj": (hidden, inner),
    }
    return {
        f"model.layers.{layer}.{name}": shape
        for layer in range(config["num_hidden_layers"])
        for name, shape in shapes.items()
    }
