"""The attention that packed rows are trained with: the fastest that the machine has."""

from itertools import pairwise
from typing import Any

import torch
from torch.nn.attention.varlen import varlen_attn
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface

VARLEN = "torch_varlen"
"""PyTorch's own variable-length flash attention, by the name that transformers knows it by."""

ROW_BY_ROW = "sdpa_row_by_row"
"""SDPA on each row: what a block-diagonal mask gives, without the blocks that it masks."""


def attention(device: torch.device) -> str:
    """Return the attention for a device: VARLEN on a GPU, else ROW_BY_ROW."""
    return VARLEN if device.type == "cuda" else ROW_BY_ROW


def _starts(tokens: int, cu_seq_lens_q: torch.Tensor | None, device: torch.device) -> torch.Tensor:
    """Return where rows start, and the end; without `cu_seq_lens_q` all tokens are one row."""
    if cu_seq_lens_q is not None:
        return cu_seq_lens_q
    return torch.tensor([0, tokens], dtype=torch.int32, device=device)


def varlen(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: None,
    scaling: float | None = None,
    sliding_window: int | None = None,
    cu_seq_lens_q: torch.Tensor | None = None,
    max_length_q: int | None = None,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """Return (1, tokens, heads, size) of causal attention within each row of a pack.

    Query, key and value are (1, heads, tokens, size). A token sees itself and the tokens before
    it, at most `sliding_window` in all.
    """
    query, key, value = (x[0].transpose(0, 1) for x in (query, key, value))
    starts = _starts(len(query), cu_seq_lens_q, query.device)
    longest = len(query) if max_length_q is None else max_length_q
    out: Any = varlen_attn(
        # Rotary embeddings come in fp32 where autocast is on, which flash attention lacks.
        query.to(value.dtype),
        key.to(value.dtype),
        value,
        starts,
        starts,
        longest,
        longest,
        scale=scaling,
        window_size=(-1 if sliding_window is None else sliding_window - 1, 0),
        enable_gqa=True,
    )
    return out[None], None


def row_by_row(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: None,
    scaling: float | None = None,
    sliding_window: int | None = None,
    cu_seq_lens_q: torch.Tensor | None = None,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """Return what `varlen` does, by SDPA on each row."""
    tokens = query.shape[2]
    outs = []
    for start, end in pairwise(_starts(tokens, cu_seq_lens_q, query.device).tolist()):
        length = end - start
        window = None
        if sliding_window is not None and length > sliding_window:
            seen = torch.ones(length, length, dtype=torch.bool, device=query.device)
            window = seen.tril().triu(1 - sliding_window)
        q, k, v = (x[:, :, start:end] for x in (query, key, value))
        outs.append(
            scaled_dot_product_attention(
                q, k, v, window, is_causal=window is None, scale=scaling, enable_gqa=True
            )
        )
    return torch.cat(outs, dim=2).transpose(1, 2), None


AttentionInterface.register(VARLEN, varlen)
AttentionInterface.register(ROW_BY_ROW, row_by_row)
