"""What every variant trains: a base with random weights, and rows like the specification's."""

import json
import random
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lora_assets.embedded.server.options import PACKAGED_BASE_MODEL
from lora_assets.records import Record
from lora_assets.records.dataset import Row
from lora_assets.records.training import Profile, TrainingParameters

if TYPE_CHECKING:
    from lora_assets.training.rows import EncodedRow

PARAMETERS = TrainingParameters()
ROWS_PER_UPDATE = PARAMETERS.batch_size * PARAMETERS.gradient_accumulation_steps
SHAPES: Mapping[str, Mapping[str, Any]] = {
    "mistral-7b": {
        "vocab_size": 32000,
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "max_position_embeddings": 32768,
        "sliding_window": 4096,
    },
    "small": {
        "vocab_size": 2048,
        "hidden_size": 256,
        "intermediate_size": 512,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 2048,
        "sliding_window": None,
    },
}
_WORDS = (
    "bucket instance table queue role policy stream cluster function key returns creates "
    "deletes lists the of a specified for with account region tags"
)


class Task(Record):
    """One variant's work, as it is handed to its process; `folder` is for its own files."""

    variant: str
    profile: Profile
    base: Path
    folder: Path
    rows: int

    def train_rows(self) -> list[Row]:
        return make_rows(self.rows, seed=1)

    def encoded(self) -> "list[EncodedRow]":
        """Return the rows of train as tokens; those that are too long are left out."""
        from transformers import AutoTokenizer

        from lora_assets.training.rows import encode_split

        tokenizer = AutoTokenizer.from_pretrained(self.base)
        limit = PARAMETERS.max_seq_length
        return encode_split("train", self.train_rows(), tokenizer, limit)[0]


def make_rows(count: int, seed: int) -> list[Row]:
    """Return rows of about 450 tokens (median, the packaged tokenizer's), 60 of them the answer."""
    draw = random.Random(seed)
    vocabulary = _WORDS.split()

    def words(number: float) -> str:
        return " ".join(draw.choice(vocabulary) for _ in range(max(3, int(number))))

    rows = []
    for _ in range(count):
        context = words(min(790, draw.lognormvariate(5.84, 0.5)))
        question, answer = words(12), words(draw.lognormvariate(4.0, 0.4))
        prompt = f"[INST] Context: {context} Question: {question} [/INST]"
        rows.append(
            Row(
                context=context,
                question=question,
                reference_answer=answer,
                prompt_training=f"{prompt} {answer}",
                prompt_inference=prompt,
                metadata={"question_type": "factual"},
            )
        )
    return rows


def make_base(shape: str, folder: Path) -> int:
    """Make the base in `folder` unless a complete one is there; return its parameters."""
    import torch
    from transformers import AutoTokenizer, MistralConfig, MistralForCausalLM

    done = folder / "done.json"
    if not done.exists():
        torch.manual_seed(0)
        torch.set_default_dtype(torch.bfloat16)
        config = MistralConfig(**SHAPES[shape], rms_norm_eps=1e-5, bos_token_id=1, eos_token_id=2)
        with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
            model: Any = MistralForCausalLM(config)
        model.save_pretrained(folder)
        AutoTokenizer.from_pretrained(PACKAGED_BASE_MODEL).save_pretrained(folder)
        done.write_text(json.dumps(model.num_parameters()))
    return int(json.loads(done.read_text()))
