import json
from typing import Any

import pytest

from lora_assets.errors import LoraAssetsError
from lora_assets.records.dataset import parse_split, version_order

ROW = {
    "context": "A: does a.",
    "question": "q",
    "reference_answer": "Does a.",
    "prompt_inference": "[INST] q [/INST]",
    "prompt_training": "[INST] q [/INST] Does a.",
    "metadata": {"question_type": "factual", "source": "aws"},
}


def line(**changes: Any) -> bytes:
    return json.dumps(ROW | changes).encode() + b"\n"


def test_a_split_is_its_rows_in_order() -> None:
    first, second = parse_split("val", line() + line(question="r"), "file:///data/1")
    assert (first.question, second.question) == ("q", "r")
    assert (first.answer, first.is_negative) == (" Does a.", False)


@pytest.mark.parametrize(
    ("content", "cause"),
    [
        (b"", " is empty"),
        (b"\n\n", " is empty"),
        (b"\xff\xfe\n", " is not UTF-8 (byte 0)"),
        (line()[:-1], " is truncated: its last line does not end"),
        (line() + line()[:40] + b"\n", " line 2: Invalid JSON: "),
        (line(question=""), " line 1: question: "),
        (line().replace(b'"context": "A: does a.", ', b""), " line 1: context: Field required"),
        (line(extra=1), " line 1: extra: Extra inputs are not permitted"),
        (line(prompt_training="other"), " line 1: Value error, prompt_training does not begin"),
    ],
)
def test_a_malformed_split_is_refused_with_its_name_and_line(content: bytes, cause: str) -> None:
    with pytest.raises(LoraAssetsError, match="Build the data version again") as refused:
        parse_split("val", content, "file:///data/1")
    assert refused.value.cause.startswith(f"file:///data/1/val.jsonl{cause}")


def test_versions_are_ordered_as_people_count() -> None:
    ordered = ["1", "2", "10", "2026-9-1", "2026-11-01", "v2", "v10"]
    assert sorted(reversed(ordered), key=version_order) == ordered
