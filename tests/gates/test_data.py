import pytest

from lora_assets.gates.data import data_is_sound
from lora_assets.records.dataset import SPLITS, Row, SplitName, TrainingData
from tests.support.rows import make_row

DATA = TrainingData(data_version="1", digest="e" * 64, source="file:///data/1", splits={})


def sound() -> dict[SplitName, tuple[Row, ...]]:
    return {
        name: (make_row(question=f"{name} 1"), make_row(0, "negative", question=f"{name} 2"))
        for name in SPLITS
    }


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
