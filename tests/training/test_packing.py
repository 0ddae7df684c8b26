"""Packed rows have the loss and the gradients that they have one by one."""

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from lora_assets.records.dataset import Row
from lora_assets.training.adapter_trainer import summed_loss
from lora_assets.training.attention import ROW_BY_ROW
from lora_assets.training.packing import pack
from lora_assets.training.qlora import load_tokenizer
from lora_assets.training.rows import EncodedRow, encode
from tests.support.tiny_models import save_tiny

ONE_TOKEN_OF_ANSWER = EncodedRow((1, 40, 50, 60, 2), 4)
NO_PROMPT = EncodedRow((70, 80, 2), 0)


def encoded(rows: list[Row], model: Path) -> list[EncodedRow]:
    tokenizer = load_tokenizer(model)
    return [*(encode(row, tokenizer) for row in rows[::3]), ONE_TOKEN_OF_ANSWER, NO_PROMPT]


def alone(model: torch.nn.Module, row: EncodedRow) -> torch.Tensor:
    """Return the row's summed loss by the model's own labels, without any packing."""
    tokens = torch.tensor([row.tokens])
    labels = tokens.clone()
    labels[:, : row.prompt_length] = -100
    counted = len(row.tokens) - max(row.prompt_length, 1)
    loss: torch.Tensor = model(input_ids=tokens, labels=labels).loss * counted
    return loss


@pytest.mark.parametrize("kind", ["mistral", "llama", "qwen2"])
@pytest.mark.parametrize("budget", [1, 130, 100_000])
def test_loss_and_gradients_of_an_update_are_those_of_its_rows_one_by_one(
    rows: list[Row], tmp_path: Path, kind: str, budget: int
) -> None:
    folder = save_tiny(tmp_path / kind, kind)
    update = encoded(rows, folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    expected = torch.stack([alone(model, row) for row in update]).sum()
    expected.backward()
    model.set_attn_implementation(ROW_BY_ROW)
    gradients = {name: weight.grad for name, weight in model.named_parameters()}
    model.zero_grad()
    total = torch.tensor(0.0)
    for part in pack(update, budget):
        loss = summed_loss(model, part)
        loss.backward()
        total += loss.detach()
    torch.testing.assert_close(total, expected.detach(), rtol=1e-5, atol=0)
    # A bias of Qwen2's keys has no gradient but rounding.
    largest = max(float(gradient.abs().max()) for gradient in gradients.values())
    for name, weight in model.named_parameters():
        torch.testing.assert_close(weight.grad, gradients[name], rtol=1e-5, atol=1e-6 * largest)


def row_of(tokens: int) -> EncodedRow:
    return EncodedRow(tuple(range(tokens)), 1)


@pytest.mark.parametrize(
    ("lengths", "budget", "parts"),
    [
        ([30, 20, 10], 60, [[30, 20, 10]]),
        ([30, 20, 10], 59, [[30], [20, 10]]),
        ([50, 50, 50], 60, [[50], [50], [50]]),
        ([90, 20, 20], 40, [[90], [20, 20]]),
        ([30, 20], 1, [[30], [20]]),
    ],
)
def test_parts_fit_the_budget_or_are_one_row(
    lengths: list[int], budget: int, parts: list[list[int]]
) -> None:
    packed = pack([row_of(length) for length in lengths], budget)
    assert sorted([len(row.tokens) for row in part] for part in packed) == sorted(parts)
