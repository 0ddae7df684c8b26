"""Rows of a data set for tests to which only a few of their fields matter."""

from typing import Any

from lora_assets.records.dataset import Row, RowMetadata


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
