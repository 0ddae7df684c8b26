"""The architectures that the embedded server serves, beside what transformers computes."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from lora_assets.embedded.server.decoder import Decoder
from lora_assets.embedded.server.lora import LoraBatch
from lora_assets.errors import LoraAssetsError
from tests.support.tiny_models import save_tiny

PROMPT = [1, 300, 17, 900, 42]
SCALED = {"rope_type": "linear", "factor": 2.0, "rope_theta": 10000.0}


@pytest.mark.parametrize(
    ("kind", "others"),
    [
        ("mistral", {"sliding_window": 256}),
        ("llama", {}),
        ("llama", {"rope_parameters": SCALED, "attention_bias": True, "eos_token_id": [2, 7]}),
        ("qwen2", {}),
    ],
)
def test_an_architecture_answers_as_in_transformers(
    tmp_path: Path, kind: str, others: dict[str, Any]
) -> None:
    decoder = Decoder(save_tiny(tmp_path, kind, **others))
    assert decoder.end_tokens == set(others.get("eos_token_id", [2]))
    model = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    lora = LoraBatch(()).rows([], [])
    logits, (prompt,) = decoder.prefill([PROMPT], lora)
    cache = decoder.new_cache(1)
    cache.admit(prompt)
    given = [int(logits[0].argmax())]
    while len(given) < 6:
        given.append(int(decoder.decode(given[-1:], cache, lora)[0].argmax()))
    wanted = list(PROMPT)
    with torch.inference_mode():
        for _ in given:
            wanted.append(int(model(input_ids=torch.tensor([wanted])).logits[0, -1].argmax()))
    assert given == wanted[len(PROMPT) :]


@pytest.mark.parametrize(
    ("kind", "others", "shown"),
    [("mistral", {"sliding_window": 64}, "mistral .sliding window."), ("qwen3", {}, "qwen3")],
)
def test_another_architecture_is_refused_by_name(
    tmp_path: Path, kind: str, others: dict[str, Any], shown: str
) -> None:
    with pytest.raises(LoraAssetsError, match=f"holds a {shown} model. Give one of mistral, llama"):
        Decoder(save_tiny(tmp_path, kind, **others))
