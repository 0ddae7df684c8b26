from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoTokenizer, MistralConfig, MistralForCausalLM

from lora_assets.embedded.data_set.aws_operations import operations
from lora_assets.embedded.recipe import make, pretraining
from lora_assets.embedded.recipe.lookups import SECOND, Lookup, Stage

FOLDER = Path(make.__file__).parents[1] / "base_model"
STAGES = (
    Stage(3, 1e-3, (1, 2), 4, varied=False, one_service=0, absent=0, whole=1),
    Stage(3, 1e-3, (2, 3), 6, varied=True, one_service=1, absent=0.5, whole=0),
)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pretraining, "BATCH", 2)
    monkeypatch.setattr(pretraining, "CHECKPOINT_EVERY", 2)
    monkeypatch.setattr(pretraining, "REPORT_EVERY", 1)
    services = {"dynamodb": operations("dynamodb")}
    monkeypatch.setattr(pretraining, "services_for_training", lambda: services)


def _model() -> Any:
    torch.manual_seed(0)
    return MistralForCausalLM(
        MistralConfig(
            vocab_size=2048,
            hidden_size=16,
            intermediate_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            num_key_value_heads=1,
        )
    )


def _tokenizer() -> Any:
    return AutoTokenizer.from_pretrained(FOLDER)


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("killed_after", ["stage 1 step 3/3", "stage 2 step 2/3"])
def test_a_run_that_was_killed_goes_on_to_the_same_weights(
    tmp_path: Path, killed_after: str
) -> None:
    def kill(line: str) -> None:
        if line.startswith(killed_after):
            raise KeyboardInterrupt

    straight, resumed = _model(), _model()
    (tmp_path / "straight").mkdir()
    (tmp_path / "killed").mkdir()
    pretraining.train(straight, _tokenizer(), STAGES, tmp_path / "straight", lambda line: None)
    with pytest.raises(KeyboardInterrupt):
        pretraining.train(_model(), _tokenizer(), STAGES, tmp_path / "killed", kill)
    pretraining.train(resumed, _tokenizer(), STAGES, tmp_path / "killed", lambda line: None)
    for one, other in zip(straight.parameters(), resumed.parameters(), strict=True):
        torch.testing.assert_close(one, other)


def test_the_loss_counts_the_answer_and_the_end_or_the_whole_sequence() -> None:
    tokenizer = _tokenizer()
    lookups = [
        Lookup("GetJob: Gets a job.\n\nGetJob:", " Gets a job.", whole) for whole in (False, True)
    ]
    batch = pretraining.encode(lookups, tokenizer)
    answer = [label for label in batch["labels"][0].tolist() if label != -100]
    assert tokenizer.decode(answer) == " Gets a job.</s>"
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
