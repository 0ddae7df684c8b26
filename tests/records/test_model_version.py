"""Which of two model versions has the older data."""

import pytest

from lora_assets.records.model_version import ModelVersion
from tests.support.records import model_version

EARLY, LATE = "2026-11-01T08:00:00+00:00", "2026-11-02T08:00:00+00:00"


def version(number: int, data_version: str, arrived: str = "") -> ModelVersion:
    return model_version(number, data_version).model_copy(update={"data_arrived": arrived})


@pytest.mark.parametrize(
    ("older", "newer"),
    [
        (version(2, "9", LATE), version(1, "10", EARLY)),
        (version(2, "a1b2c3", EARLY), version(1, "9f8e7d", LATE)),
        (version(1, "a1b2c3", EARLY), version(2, "9f8e7d", EARLY)),
        (version(1, "a1b2c3"), version(2, "9f8e7d", EARLY)),
        (version(1, "a1b2c3", LATE), version(2, "9f8e7d")),
    ],
    ids=["by name", "by arrival", "at once", "one not known", "the other not known"],
)
def test_names_then_arrival_then_registration_say_whose_data_are_older(
    older: ModelVersion, newer: ModelVersion
) -> None:
    assert older.is_older_than(newer)
    assert not newer.is_older_than(older)
