"""Which rows the base model and the server can't take."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from lora_assets.records.dataset import SPLITS, Row, SplitName
from lora_assets.records.split_file import summary
from lora_assets.training.fit import misfits
from lora_assets.training.qlora import load_tokenizer
from tests.support.rows import make_row

KINDS = ("factual", "factual", "factual", "negative")
LONG = {"prompt_inference": "Q " + "word " * 300, "prompt_training": "Q " + "word " * 300 + "a"}


def rows_with(texts: dict[str, str], places: dict[str, list[int]]) -> dict[SplitName, list[Row]]:
    """Four rows a split, those at `places` with other texts."""
    return {
        name: [
            make_row(i, kind, **(texts if i in places.get(name, ()) else {}))
            for i, kind in enumerate(KINDS)
        ]
        for name in SPLITS
    }


def found(splits: dict[SplitName, list[Row]], tokenizer: Any, *limits: Any) -> str:
    numbered = {name: dict(enumerate(rows, start=1)) for name, rows in splits.items()}
    return summary(misfits(numbered, tokenizer, *limits))


SEQ = "longer than 200 tokens (max-seq-length)"
SERVED = "longer than 200 tokens (the server's max_model_len)"


@pytest.mark.parametrize(
    ("long", "limits", "faults"),
    [
        ({}, (200, None, 0.0), ""),
        ({"train": [0]}, (200, None, 0.0), ""),
        ({"train": [3]}, (200, None, 0.0), f"train.jsonl line 4: {SEQ}"),
        ({"val": [0, 1]}, (200, 8192, 0.0), f"val.jsonl lines 1-2: {SEQ}"),
        ({"val": [0, 1]}, (200, None, 0.5), ""),
        ({"val": [0, 1, 2]}, (200, None, 0.5), f"val.jsonl lines 1-3: {SEQ}"),
        ({"val": [3]}, (200, None, 0.5), f"val.jsonl line 4: {SEQ}"),
        (
            {"val": [0], "eval": [3]},
            (200, None, 0.0),
            f"val.jsonl line 1: {SEQ}; eval.jsonl line 4: {SEQ}",
        ),
        ({"val": [0], "eval": [1]}, (1024, None, 0.0), ""),
        (
            {"train": [0, 3], "val": [0]},
            (1024, 200, 0.0),
            f"train.jsonl lines 1, 4: {SERVED}; val.jsonl line 1: {SERVED}",
        ),
        ({"val": [0], "eval": [1]}, (1024, 200, 0.5), f"eval.jsonl line 2: {SERVED}"),
        ({"eval": [1]}, (100, 200, 0.5), f"eval.jsonl line 2: {SERVED}"),
    ],
)
def test_what_could_not_be_measured_or_served_is_named_by_line_and_limit(
    tiny_model: Path, long: dict[str, list[int]], limits: Sequence[Any], faults: str
) -> None:
    assert found(rows_with(LONG, long), load_tokenizer(tiny_model), *limits) == faults


@pytest.fixture
def tokenizer(tiny_model: Path, tmp_path: Path) -> Any:
    """The base's tokenizer with control tokens of forms that no list has."""
    own = AutoTokenizer.from_pretrained(tiny_model)
    own.add_special_tokens({"pad_token": "~fill~", "additional_special_tokens": ["@@tool@@"]})
    own.add_tokens(["Route53"])
    own.save_pretrained(tmp_path)
    assert "Route53" in json.dumps(json.loads((tmp_path / "tokenizer.json").read_text()))
    return load_tokenizer(tmp_path)


@pytest.mark.parametrize(
    ("texts", "faults"),
    [
        ({"context": "a Route53 zone"}, ""),
        ({"prompt_inference": "Q @@tool@@", "prompt_training": "Q @@tool@@ a"}, ""),
        (
            {"context": "a @@tool@@ b"},
            "val.jsonl line 2: context: holds the control token @@tool@@",
        ),
        (
            {"prompt_training": "Q1 a~fill~ @@tool@@"},
            "val.jsonl line 2: prompt_training: holds control tokens ~fill~, @@tool@@",
        ),
        (
            {"prompt_inference": "Q ~fill~", "prompt_training": "Q ~fill~ a"},
            "val.jsonl line 2: prompt_inference: holds the control token ~fill~",
        ),
    ],
)
def test_the_tokenizers_own_control_tokens_are_named_by_line_and_field(
    tokenizer: Any, texts: dict[str, str], faults: str
) -> None:
    assert found(rows_with(texts, {"val": [1]}), tokenizer, 200, None, 0.0) == faults
