"""Rows as token batches, and which of their tokens the loss counts."""

import math
import random
from collections.abc import Sequence
from itertools import accumulate, pairwise
from typing import Any, NamedTuple

from lora_assets.errors import LoraAssetsError
from lora_assets.records.dataset import Row
from lora_assets.records.training import RowLengths

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


def lengths(rows: Sequence[EncodedRow]) -> RowLengths:
    """Return median, P95 and maximum of the rows' tokens."""
    tokens = sorted(len(row.tokens) for row in rows)
    median, p95 = (tokens[math.ceil(share * len(tokens)) - 1] for share in (0.5, 0.95))
    return RowLengths(median=median, p95=p95, longest=tokens[-1])


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


def plan_updates(
    rows: Sequence[EncodedRow], batch_size: int, accumulation: int, epochs: int, seed: int
) -> list[list[int]]:
    """Return the row indexes of every update: those of `accumulation` planned batches."""
    plan = plan_batches(rows, batch_size, epochs, seed)
    return [
        [index for batch in plan[start : start + accumulation] for index in batch]
        for start in range(0, len(plan), accumulation)
    ]
