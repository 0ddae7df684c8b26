"""Memory decides how rows are laid into passes, and never ends a run that could go on."""

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from lora_assets.errors import LoraAssetsError
from lora_assets.records.dataset import Row
from lora_assets.records.training import Listeners, TrainingParameters
from lora_assets.training import token_budget
from lora_assets.training.adapter_trainer import AdapterTrainer, summed_loss
from lora_assets.training.qlora import load_model, load_tokenizer
from lora_assets.training.rows import EncodedRow, encode
from lora_assets.training.token_budget import TokenBudget

LONGEST = 100


class Card:
    """Memory of `size` bytes, of which a pass takes `fixed`, and `per_token` for each token.

    Recomputing takes a tenth per token. The first pass takes `once` beside that.
    """

    def __init__(self, size: int, per_token: int, fixed: int = 0, once: int = 0) -> None:
        self.size, self.per_token, self.fixed, self.once = size, per_token, fixed, once
        self.recomputing = False
        self.peak = 0

    def __call__(self, rows: Sequence[EncodedRow]) -> None:
        tokens = sum(len(row.tokens) for row in rows)
        per_token = self.per_token // 10 if self.recomputing else self.per_token
        self.peak = self.fixed + per_token * tokens + self.once
        self.once = 0
        if self.peak > self.size:
            raise torch.OutOfMemoryError


class Model:
    """What a budget asks of a model."""

    device = torch.device("cpu")

    def __init__(self, card: Card) -> None:
        self.card = card

    def zero_grad(self) -> None:
        pass

    def activation_checkpointing_enable(self, options: dict[str, bool]) -> None:
        assert options == {"use_reentrant": False}
        self.card.recomputing = True


def measured(
    card: Card, lengths: Sequence[int], monkeypatch: pytest.MonkeyPatch
) -> tuple[TokenBudget, list[str]]:
    """Return the budget that is measured with rows of these lengths, and its notes."""

    def peak(rows: Sequence[EncodedRow], cost: Card) -> int:
        cost(rows)
        return cost.peak

    monkeypatch.setattr(token_budget, "_peak", peak)
    monkeypatch.setattr(token_budget, "_free", lambda: card.size)
    notes: list[str] = []
    budget = TokenBudget(Model(card), LONGEST, notes.append)
    budget.measure([EncodedRow((5,) * length, 2) for length in lengths], card)
    return budget, notes


@pytest.mark.parametrize("once", [0, 20_000])
def test_the_budget_is_what_nine_tenths_of_the_free_memory_hold_whatever_the_first_pass_takes(
    monkeypatch: pytest.MonkeyPatch, once: int
) -> None:
    card = Card(size=100_000, per_token=10, fixed=5_000, once=once)
    budget, notes = measured(card, [100, 80, 60, 40], monkeypatch)
    assert (budget.tokens, budget.checkpointing) == (8_500, False)
    assert len(notes) == 1
    assert notes[0].endswith("8500 tokens a pass")


@pytest.mark.parametrize(
    ("size", "per_token", "tokens", "recomputed"),
    [
        # Two passes of a row each, where one pass could hold both with its activations recomputed.
        (1_500, 10, 135, False),
        (1_112, 10, LONGEST, False),
        (1_111, 10, 999, True),
        (1_500, 20, 675, True),
        (800, 20, 360, True),
    ],
)
def test_activations_are_recomputed_only_where_the_longest_row_would_not_fit_without(
    monkeypatch: pytest.MonkeyPatch, size: int, per_token: int, tokens: int, recomputed: bool
) -> None:
    budget, notes = measured(Card(size, per_token), [LONGEST, LONGEST], monkeypatch)
    assert (budget.tokens, budget.checkpointing) == (tokens, recomputed)
    assert notes[-1].endswith("activations recomputed") == recomputed


def test_the_longest_row_alone_is_tried_then_with_its_activations_recomputed_then_refused() -> None:
    card, notes = Card(0, 0), list[str]()
    budget = TokenBudget(Model(card), LONGEST, notes.append)

    def passes(tokens: int) -> int:
        if not card.recomputing:
            raise RuntimeError("Triton Error [CUDA]: out of memory")
        return tokens

    assert [budget.within(passes) for _ in range(2)] == [LONGEST, LONGEST]
    assert notes == [
        "out of memory: going on with 512 tokens a pass",
        "out of memory: going on with 256 tokens a pass",
        "out of memory: going on with 128 tokens a pass",
        "out of memory: going on with 100 tokens a pass",
        "out of memory: going on with 100 tokens a pass, activations recomputed",
    ]
    card.recomputing = False
    with pytest.raises(LoraAssetsError, match="a training pass over a row of 100 tokens"):
        budget.within(passes)


def test_a_measuring_pass_that_ends_halfway_leaves_no_gradient(
    rows: list[Row], tiny_model: Path, tmp_path: Path
) -> None:
    parameters = TrainingParameters(quantization="none", max_seq_length=256)
    model = load_model(tiny_model, parameters)
    encoded = [encode(row, load_tokenizer(tiny_model)) for row in rows[:2]]
    budget = TokenBudget(model, LONGEST, lambda note: None)
    told = Listeners(lambda _: None, lambda _: None, lambda _: None)
    trainer = AdapterTrainer(model, parameters, tmp_path, encoded, encoded, budget, told)
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    reached: list[torch.Tensor] = []

    def memory_ends(gradient: torch.Tensor) -> None:
        reached.extend(weight for weight in trained if weight.grad is not None)
        raise torch.OutOfMemoryError

    # The backward pass comes to the first layer last.
    trained[0].register_hook(memory_ends)
    with pytest.raises(torch.OutOfMemoryError):
        trainer._only_cost(encoded)
    assert reached
    assert [weight for weight in trained if weight.grad is not None] == []


def test_recomputed_activations_give_the_same_gradients(rows: list[Row], tiny_model: Path) -> None:
    update = [encode(row, load_tokenizer(tiny_model)) for row in rows[:4]]
    gradients = []
    for recomputed in (False, True):
        model = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32).train()
        if recomputed:
            model.activation_checkpointing_enable({"use_reentrant": False})
        summed_loss(model, update).backward()
        gradients.append([weight.grad for weight in model.parameters()])
    torch.testing.assert_close(*gradients)
