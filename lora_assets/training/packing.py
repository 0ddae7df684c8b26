"""Rows laid end to end, so that no token of a pass is padding."""

from collections.abc import Sequence
from heapq import heapreplace
from itertools import accumulate
from typing import Any

import torch

from lora_assets.training.rows import EncodedRow


def pack(rows: Sequence[EncodedRow], budget: int) -> list[list[EncodedRow]]:
    """Return the rows in few parts of at most `budget` tokens, as alike as that allows.

    A row that is longer than the budget has a part of its own.
    """
    longest_first = sorted(rows, key=lambda row: -len(row.tokens))
    alone = [[row] for row in longest_first if len(row.tokens) > budget]
    shared = longest_first[len(alone) :]
    count = -(-sum(len(row.tokens) for row in shared) // budget)
    while shared:
        parts: list[list[EncodedRow]] = [[] for _ in range(count)]
        emptiest = [(0, part) for part in range(count)]
        for row in shared:
            used, part = emptiest[0]
            heapreplace(emptiest, (used + len(row.tokens), part))
            parts[part].append(row)
        if all(used <= budget for used, _ in emptiest):
            return alone + parts
        count += 1
    return alone


def model_inputs(rows: Sequence[EncodedRow], device: torch.device) -> tuple[dict[str, Any], Any]:
    """Return what a causal language model's forward pass takes for the rows, and the targets.

    `input_ids` and `position_ids` are (1, tokens), positions start from 0 in each row; the
    logits of the answers' tokens alone are computed, and the targets are their (answer tokens,)
    next tokens. Where rows begin is told as transformers tells its attention functions
    (`cu_seq_lens_q`), and seen by its own masks in the positions.
    """
    inputs = [token for row in rows for token in row.tokens[:-1]]
    lengths = [len(row.tokens) - 1 for row in rows]
    starts = [0, *accumulate(lengths)]
    positions = [position for length in lengths for position in range(length)]
    answers = [
        start + position
        for start, row in zip(starts, rows, strict=False)
        for position in range(max(row.prompt_length - 1, 0), len(row.tokens) - 1)
    ]
    targets = [token for row in rows for token in row.tokens[max(row.prompt_length, 1) :]]

    def on_device(values: list[int], dtype: torch.dtype = torch.long) -> torch.Tensor:
        # Pinned, a copy to the GPU doesn't wait for the work that is queued there.
        on_host = torch.tensor(values, dtype=dtype, pin_memory=device.type == "cuda")
        return on_host.to(device, non_blocking=True)

    return {
        "input_ids": on_device(inputs)[None],
        "position_ids": on_device(positions)[None],
        "logits_to_keep": on_device(answers),
        "cu_seq_lens_q": on_device(starts, torch.int32),
        "max_length_q": max(lengths),
        "use_cache": False,
    }, on_device(targets)
