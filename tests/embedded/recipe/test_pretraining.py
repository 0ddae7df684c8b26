from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoTokenizer, MistralConfig, MistralForCausalLM

from lora_assets.embedded.data_set.aws_operations import operations
from lora_assets.embedded.recipe import make, pretraining
from lora_assets.embedded.recipe.lookups import SECOND, Lookup, Stage
from lora_assets.embedded.server.options import PACKAGED_BASE_MODEL

STAGES = (
    Stage(3, 1e-3, (1, 2), 4, varied=False, one_service=0, absent=0, whole=1),
    Stage(3, 1e-3, (2, 3), 6, varied=True, one_service=1, absent=0.5, whole=0),
)


Train = Callable[[Path, Callable[[str], None]], Any]


@pytest.fixture
def tokenizer() -> Any:
    return AutoTokenizer.from_pretrained(PACKAGED_BASE_MODEL)


@pytest.fixture
def train(tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> Train:
    """Train a small model in a folder, and return it."""
    for name, value in (("BATCH", 2), ("CHECKPOINT_EVERY", 2), ("REPORT_EVERY", 1)):
        monkeypatch.setattr(pretraining, name, value)
    services = {"dynamodb": operations("dynamodb")}
    monkeypatch.setattr(pretraining, "services_for_training", lambda: services)
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "head_dim": 8}
    config = MistralConfig.from_pretrained(PACKAGED_BASE_MODEL, **sizes)

    def run(folder: Path, report: Callable[[str], None]) -> Any:
        folder.mkdir(exist_ok=True)
        torch.manual_seed(0)
        model = MistralForCausalLM(config)
        pretraining.train(model, tokenizer, STAGES, folder, report)
        return model

    return run


@pytest.mark.parametrize("killed_after", ["stage 1 step 3/3", "stage 2 step 2/3"])
def test_a_run_that_was_killed_goes_on_to_the_same_weights(
    train: Train, tmp_path: Path, killed_after: str
) -> None:
    def kill(line: str) -> None:
        if line.startswith(killed_after):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "killed", kill)
    runs = [train(tmp_path / name, lambda line: None) for name in ("killed", "straight")]
    resumed, straight = (run.parameters() for run in runs)
    for one, other in zip(resumed, straight, strict=True):
        torch.testing.assert_close(one, other)


def test_the_loss_counts_the_answer_and_the_end_or_the_whole_sequence(tokenizer: Any) -> None:
    prompt, answer = "GetJob: Gets a job.\n\nGetJob:", " Gets a job."
    lookups = [Lookup(prompt, answer, whole) for whole in (False, True)]
    batch = pretraining.encode(lookups, tokenizer)
    counted = [label for label in batch["labels"][0].tolist() if label != -100]
    assert tokenizer.decode(counted) == f"{answer}</s>"
    assert torch.equal(batch["labels"][1], batch["input_ids"][1])


def test_a_stage_warms_up_and_ends_near_zero() -> None:
    rates = [pretraining.learning_rate(SECOND, step) for step in range(SECOND.steps)]
    assert rates[0] < SECOND.learning_rate / 50
    assert max(rates) == pytest.approx(SECOND.learning_rate, rel=0.01)
    assert rates[-1] < SECOND.learning_rate / 1000


def test_the_tokenizer_splits_camel_case_and_opens_a_text() -> None:
    texts = ["CreateTable: Creates a table.", "DeleteTable: Deletes a table."] * 5
    tokenizer = make.train_tokenizer(iter(texts))
    tokens = tokenizer.tokenize("[INST] CreateTable [/INST]")
    assert tokens == ["[INST]", "ĠCreate", "Table", "Ġ", "[/INST]"]
    assert tokenizer("Table")["input_ids"][0] == tokenizer.bos_token_id
