"""Rows of a data set for tests to which only a few of their fields matter."""

import json
from collections.abc import Callable, Mapping
from typing import Any

from lora_assets.records.dataset import SPLITS, Row, RowMetadata, SplitName


def make_row(number: int = 0, question_type: str = "factual", **texts: Any) -> Row:
    """Return a row whose question and prompt have its number."""
    fields = {
        "context": "A: Does a.",
        "question": f"question {number}",
        "reference_answer": "Does a.",
        "prompt_training": f"Q{number} Does a.",
        "prompt_inference": f"Q{number}",
    }
    return Row(**{**fields, **texts}, metadata=RowMetadata(question_type=question_type))


def make_line(number: int = 0, question_type: str = "factual", **texts: Any) -> str:
    """Return the line of a row, as people write it; a text that is None is left out."""
    row = make_row(number, question_type).model_dump() | texts
    return json.dumps({name: text for name, text in row.items() if text is not None})


def make_contents(
    change: Callable[[SplitName, list[str]], None] | None = None,
) -> Mapping[SplitName, bytes]:
    """Return the files of a sound data version, an answerable row and a negative each, changed."""
    contents: dict[SplitName, bytes] = {}
    for number, split in enumerate(SPLITS):
        lines = [make_line(10 * number), make_line(10 * number + 1, "negative")]
        if change is not None:
            change(split, lines)
        contents[split] = "".join(f"{line}\n" for line in lines).encode()
    return contents
