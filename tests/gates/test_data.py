import pytest

from lora_assets.gates.data import data_is_sound
from lora_assets.records.dataset import SPLITS, Row, RowMetadata, SplitName, TrainingData

DATA = TrainingData(data_version="1", digest="e" * 64, source="file:///data/1", splits={})


def row(question: str, question_type: str) -> Row:
    return Row(
        context="A: does a.",
        question=question,
        reference_answer="Does a.",
        prompt_inference=f"[INST] {question} [/INST]",
        prompt_training=f"[INST] {question} [/INST] Does a.",
        metadata=RowMetadata(question_type=question_type),
    )


def sound() -> dict[SplitName, tuple[Row, ...]]:
    return {name: (row(f"{name} 1", "factual"), row(f"{name} 2", "negative")) for name in SPLITS}


def test_rows_and_negatives_in_every_split_are_sound() -> None:
    assert data_is_sound(DATA, sound(), "now").passed


def test_a_row_that_stands_in_two_splits_is_not_sound() -> None:
    splits = sound()
    splits["eval"] = (*splits["eval"], splits["train"][0])
    assert data_is_sound(DATA, splits, "now").failures == ("duplicate rows 1 (must be <= 0)",)


@pytest.mark.parametrize("name", SPLITS)
def test_a_split_without_negatives_is_not_sound(name: SplitName) -> None:
    splits = sound()
    splits[name] = splits[name][:1]
    failures = data_is_sound(DATA, splits, "now").failures
    assert failures == (f"negatives in {name} 0 (must be >= 1)",)
