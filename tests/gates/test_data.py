import json
from typing import Any

import pytest

from lora_assets.errors import LoraAssetsError
from lora_assets.gates.data import data_is_sound, parse_split
from lora_assets.records.dataset import SPLITS, Row, TrainingData

DATA = TrainingData(data_version="1", digest="e" * 64, source="file:///data/1", splits={})


def row(question: str, question_type: str = "factual") -> dict[str, Any]:
    return {
        "context": "A: does a.",
        "question": question,
        "reference_answer": "Does a.",
        "prompt_inference": f"[INST] {question} [/INST]",
        "prompt_training": f"[INST] {question} [/INST] Does a.",
        "metadata": {"question_type": question_type},
    }


def lines(*rows: dict[str, Any]) -> bytes:
    return b"".join(json.dumps(r).encode() + b"\n" for r in rows)


def sound() -> dict[Any, tuple[Row, ...]]:
    return {
        name: parse_split(name, lines(row(f"{name} 1"), row(f"{name} 2", "negative")), "s")
        for name in SPLITS
    }


def test_rows_and_negatives_in_every_split_are_sound() -> None:
    assert data_is_sound(DATA, sound(), "now").passed


def test_a_row_that_stands_in_two_splits_is_not_sound() -> None:
    splits = sound()
    splits["eval"] = (*splits["eval"], splits["train"][0])
    assert data_is_sound(DATA, splits, "now").failures == ("duplicate rows 1 (must be <= 0)",)


@pytest.mark.parametrize("name", SPLITS)
def test_a_split_without_negatives_is_not_sound(name: str) -> None:
    splits = sound()
    splits[name] = splits[name][:1]
    (failure,) = data_is_sound(DATA, splits, "now").failures
    assert failure.startswith(f"negatives in {name}")


@pytest.mark.parametrize(
    ("content", "cause"),
    [
        (b"", "is empty"),
        (b"\n\n", "is empty"),
        (b"\xff\xfe\n", "is not UTF-8 (byte 0)"),
        (lines(row("q"))[:-1], "is truncated"),
        (lines(row("q")) + lines(row("r"))[:40] + b"\n", "line 2"),
        (lines({**row("q"), "question": ""}), "line 1: question"),
        (lines({k: v for k, v in row("q").items() if k != "context"}), "line 1: context"),
        (lines({**row("q"), "extra": 1}), "line 1: extra"),
        (lines({**row("q"), "prompt_training": "something else"}), "line 1: row"),
    ],
)
def test_a_split_that_is_no_split_is_refused_by_name_and_line(content: bytes, cause: str) -> None:
    with pytest.raises(LoraAssetsError) as refused:
        parse_split("val", content, "file:///data/1")
    assert "file:///data/1/val.jsonl" in refused.value.cause
    assert cause in refused.value.cause
