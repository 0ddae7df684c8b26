from pathlib import Path

import pytest

from lora_assets.errors import LoraAssetsError
from lora_assets.records.dataset import Row
from lora_assets.training.qlora import load_tokenizer
from lora_assets.training.rows import EncodedRow, encode, encode_split, lengths, plan_batches


def test_the_prompt_has_the_tokens_that_inference_sends(rows: list[Row], tiny_model: Path) -> None:
    tokenizer = load_tokenizer(tiny_model)
    for row in rows:
        encoded = encode(row, tokenizer)
        sent = tokenizer(row.prompt_inference)["input_ids"]
        assert list(encoded.tokens[: encoded.prompt_length]) == sent


def test_a_prompt_that_ends_inside_a_token_keeps_its_own_tokens(
    rows: list[Row], tiny_model: Path
) -> None:
    tokenizer = load_tokenizer(tiny_model)
    text = rows[0].prompt_training
    cut = text.index("list of all buckets", len(rows[0].prompt_inference)) + 2
    row = rows[0].model_copy(update={"prompt_inference": text[:cut]})
    encoded = encode(row, tokenizer)
    prompt = list(encoded.tokens[: encoded.prompt_length])
    assert prompt == tokenizer(text[:cut])["input_ids"]
    assert tokenizer.decode(encoded.tokens) == tokenizer.decode(
        tokenizer(text)["input_ids"] + [tokenizer.eos_token_id]
    )
    assert prompt != tokenizer(text)["input_ids"][: len(prompt)]


def test_a_row_that_does_not_fit_is_left_out_whole_and_reported(
    rows: list[Row], tiny_model: Path
) -> None:
    tokenizer = load_tokenizer(tiny_model)
    tokens = [len(encode(row, tokenizer).tokens) for row in rows]
    limit = sorted(tokens)[-3] - 1
    kept, left_out = encode_split("train", rows, tokenizer, limit)
    assert left_out == tuple(i for i, length in enumerate(tokens) if length > limit)
    assert [len(row.tokens) for row in kept] == [n for n in tokens if n <= limit]


def test_row_lengths_are_median_p95_and_longest() -> None:
    rows = [EncodedRow((0,) * number, 1) for number in range(100, 0, -1)]
    assert lengths(rows).model_dump() == {"median": 50, "p95": 95, "longest": 100}
    assert lengths(rows[:1]).model_dump() == {"median": 100, "p95": 100, "longest": 100}


@pytest.mark.parametrize(("limit", "rows_kept", "cause"), [(16, 6, "fits 16"), (256, 0, "no rows")])
def test_a_split_with_nothing_left_is_refused(
    rows: list[Row], tiny_model: Path, limit: int, rows_kept: int, cause: str
) -> None:
    with pytest.raises(LoraAssetsError, match=f"val split.*{cause}|{cause}"):
        encode_split("val", rows[:rows_kept], load_tokenizer(tiny_model), limit)


def test_the_plan_has_every_row_once_per_epoch_in_even_batches_that_the_seed_decides() -> None:
    rows = [EncodedRow(tuple(range(5 + i % 7)), 2) for i in range(33)]
    plan = plan_batches(rows, batch_size=8, epochs=2, seed=1)
    epochs = plan[:5], plan[5:]
    for epoch in epochs:
        assert sorted(index for batch in epoch for index in batch) == list(range(33))
        assert {len(batch) for batch in epoch} == {6, 7}
    assert epochs[0] != epochs[1]
    assert plan == plan_batches(rows, batch_size=8, epochs=2, seed=1)
    assert plan != plan_batches(rows, batch_size=8, epochs=2, seed=2)
