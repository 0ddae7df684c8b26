"""Rows as token batches, and which of their tokens the loss counts."""

import random
from collections.abc import Sequence
from itertools import accumulate, pairwise
from typing import Any, NamedTuple

import torch

from lora_assets.errors import LoraAssetsError
from lora_assets.records.dataset import Row

IGNORED = -100
POOL_BATCHES = 16
"""How many batches' worth of shuffled rows are sorted by length together."""


class EncodedRow(NamedTuple):
    """Prompt, answer and end-of-sequence tokens; the first `prompt_length` are the prompt's."""

    tokens: tuple[int, ...]
    prompt_length: int

    @property
    def answer_length(self) -> int:
        return len(self.tokens) - self.prompt_length


def encode(row: Row, tokenizer: Any) -> EncodedRow:
    """Tokenise a row such that its prompt's tokens are exactly those that inference sends.

    The answer's tokens are taken from the whole text where the prompt is a prefix of it in
    tokens too; where a token would span the boundary, the answer is tokenised by itself.
    """
    prompt: list[int] = tokenizer(row.prompt_inference)["input_ids"]
    whole: list[int] = tokenizer(row.prompt_training)["input_ids"]
    if whole[: len(prompt)] == prompt and len(whole) > len(prompt):
        answer = whole[len(prompt) :]
    else:
        answer = tokenizer(row.answer, add_special_tokens=False)["input_ids"]
    return EncodedRow((*prompt, *answer, tokenizer.eos_token_id), len(prompt))


def encode_split(
    name: str, rows: Sequence[Row], tokenizer: Any, max_seq_length: int
) -> tuple[list[EncodedRow], tuple[int, ...]]:
    """Return the rows that fit `max_seq_length` tokens, and the indexes of those that don't.

    A row is never cut. Raise LoraAssetsError when no row is left to train or measure on.
    """
    encoded = [encode(row, tokenizer) for row in rows]
    if not encoded:
        raise LoraAssetsError(
            f"The {name} split has no rows", "Build the data version with rows in every split."
        )
    left_out = tuple(i for i, row in enumerate(encoded) if len(row.tokens) > max_seq_length)
    if len(left_out) == len(encoded):
        shortest = min(len(row.tokens) for row in encoded)
        raise LoraAssetsError(
            f"No row of the {name} split fits {max_seq_length} tokens; the shortest has {shortest}",
            "Raise max-seq-length or shorten the contexts.",
        )
    return [row for row in encoded if len(row.tokens) <= max_seq_length], left_out


def collate(rows: Sequence[EncodedRow]) -> dict[str, Any]:
    """Return a batch for a causal language model's forward pass.

    `input_ids` is (batch, width); `labels` and `shift_labels` are the same (batch,
    `logits_to_keep`) tensor: the next token at each of the last `logits_to_keep` positions,
    IGNORED where that isn't an answer token. Logits before the first answer are never computed.

    There is no attention mask: padding lies to the right of every token, where causal
    attention can't see it, and without a mask the fast attention kernels apply.
    """
    width = max(len(row.tokens) for row in rows) - 1
    start = max(min(row.prompt_length for row in rows) - 1, 0)
    inputs = torch.zeros((len(rows), width), dtype=torch.long)
    targets = torch.full((len(rows), width), IGNORED, dtype=torch.long)
    for i, row in enumerate(rows):
        tokens = torch.tensor(row.tokens)
        inputs[i, : len(tokens) - 1] = tokens[:-1]
        first = max(row.prompt_length - 1, 0)
        targets[i, first : len(tokens) - 1] = tokens[first + 1 :]
    labels = targets[:, start:].contiguous()
    return {
        "input_ids": inputs,
        "labels": labels,
        "shift_labels": labels,
        "logits_to_keep": width - start,
    }


def plan_batches(
    rows: Sequence[EncodedRow], batch_size: int, epochs: int, seed: int
) -> list[list[int]]:
    """Return the row indexes of every batch of the whole run: a function of its arguments alone.

    Each row comes once per epoch. Rows of similar length share a batch, so that little is
    padded; the batches of an epoch come in random order and differ by at most one row in size.
    """
    shuffler = random.Random(seed)
    plan: list[list[int]] = []
    for _ in range(epochs):
        order = list(range(len(rows)))
        shuffler.shuffle(order)
        pool = batch_size * POOL_BATCHES
        by_length = [
            index
            for start in range(0, len(order), pool)
            for index in sorted(order[start : start + pool], key=lambda i: len(rows[i].tokens))
        ]
        size, longer = divmod(len(order), count := -(-len(order) // batch_size))
        ends = list(accumulate(size + (batch < longer) for batch in range(count)))
        batches = [by_length[start:end] for start, end in pairwise((0, *ends))]
        shuffler.shuffle(batches)
        plan.extend(batches)
    return plan


def eval_batches(rows: Sequence[EncodedRow], batch_size: int) -> list[list[EncodedRow]]:
    """Return all rows once, shortest first, in batches of at most `batch_size`."""
    ordered = sorted(rows, key=lambda row: len(row.tokens))
    return [ordered[i : i + batch_size] for i in range(0, len(ordered), batch_size)]
