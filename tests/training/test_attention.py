"""Both attentions of packed rows compute the same."""

import pytest
import torch

from lora_assets.training.attention import row_by_row, varlen

LENGTHS = (5, 130, 64, 1)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="flash attention is of a GPU")
@pytest.mark.parametrize("window", [None, 40])
def test_flash_attention_of_a_pack_is_that_of_its_rows(window: int | None) -> None:
    torch.manual_seed(1)
    tokens = sum(LENGTHS)
    query, key, value = (
        torch.randn(1, heads, tokens, 64, device="cuda", dtype=torch.bfloat16, requires_grad=True)
        for heads in (8, 2, 2)
    )
    starts = torch.tensor([0, 5, 135, 199, 200], dtype=torch.int32, device="cuda")
    results = []
    for attend in (varlen, row_by_row):
        options = {"sliding_window": window, "cu_seq_lens_q": starts, "max_length_q": max(LENGTHS)}
        out, _ = attend(None, query, key, value, None, **options)
        results.append((out, *torch.autograd.grad(out.float().square().sum(), (query, key, value))))
    for flash, rows in zip(*results, strict=True):
        assert ((flash - rows).float().norm() / rows.float().norm()).item() < 1e-2


@pytest.mark.parametrize("window", [None, 40])
def test_a_row_has_the_attention_in_a_pack_that_it_has_alone(window: int | None) -> None:
    torch.manual_seed(1)
    tokens = sum(LENGTHS)
    query, key, value = (torch.randn(1, heads, tokens, 16) for heads in (4, 2, 2))
    starts = torch.tensor([0, 5, 135, 199, 200], dtype=torch.int32)
    packed, _ = row_by_row(None, query, key, value, None, None, window, starts)
    mask = torch.ones(130, 130).tril().triu(1 - (window or 130)).bool()
    scores = query[:, :, 5:135] @ key[:, :, 5:135].repeat_interleave(2, 1).mT / 4
    weights = scores.masked_fill(~mask, -torch.inf).softmax(-1)
    alone = weights @ value[:, :, 5:135].repeat_interleave(2, 1)
    torch.testing.assert_close(packed[0, 5:135], alone[0].transpose(0, 1), rtol=1e-4, atol=1e-5)
