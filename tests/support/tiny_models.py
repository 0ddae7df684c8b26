"""A tiny random Mistral with the base model's tokenizer, and rows that it can be trained on."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, MistralForCausalLM

from lora_assets.embedded.server.options import PACKAGED_BASE_MODEL
from lora_assets.records.dataset import Row, RowMetadata

OPERATIONS = {
    "ListBuckets": "Returns a list of all buckets.",
    "CopyObject": "Creates a copy of an object.",
    "DeleteObject": "Removes an object from a bucket, for good.",
    "GetBucketAcl": "Returns the access control list of a bucket and who may change it.",
    "PutObject": "Adds an object.",
    "HeadBucket": "Tells whether a bucket exists and whether the caller may use it.",
}


def _row(asked: str, other: str) -> Row:
    context = f"{asked}: {OPERATIONS[asked]}\n{other}: {OPERATIONS[other]}"
    question = f"What does {asked} do in s3?"
    prompt = f"[INST] Context: {context}\nQuestion: {question} [/INST]"
    return Row(
        context=context,
        question=question,
        reference_answer=OPERATIONS[asked],
        prompt_training=f"{prompt} {OPERATIONS[asked]}",
        prompt_inference=prompt,
        metadata=RowMetadata(question_type="factual"),
    )


@pytest.fixture(scope="session")
def rows() -> list[Row]:
    """Thirty rows of different lengths."""
    return [_row(asked, other) for asked in OPERATIONS for other in OPERATIONS if asked != other]


@pytest.fixture(scope="session")
def make_model(
    tmp_path_factory: pytest.TempPathFactory,
) -> Callable[[Callable[[MistralForCausalLM], None]], Path]:
    """Make a base model folder, after `spoil` did what it wants to the weights."""

    def make(spoil: Callable[[MistralForCausalLM], None]) -> Path:
        return save_tiny(tmp_path_factory.mktemp("base"), "mistral", spoil)

    return make


def save_tiny(
    folder: Path, kind: str, spoil: Callable[[Any], None] = lambda model: None, **others: Any
) -> Path:
    """Save a random model of an architecture as transformers calls it, its biases not zero."""
    torch.manual_seed(1)
    sizes = {
        **{"vocab_size": 2048, "hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 2},
        **{"num_attention_heads": 2, "num_key_value_heads": 1, "max_position_embeddings": 256},
        **{"tie_word_embeddings": False, "bos_token_id": 1, "eos_token_id": 2},
    }
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **{**sizes, **others}))
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            torch.nn.init.normal_(parameter)
    spoil(model)
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(PACKAGED_BASE_MODEL).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_model(make_model: Callable[[Callable[[MistralForCausalLM], None]], Path]) -> Path:
    return make_model(lambda model: None)
