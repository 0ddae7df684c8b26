import pytest

from lora_assets.errors import LoraAssetsError
from lora_assets.judging.slices import compare_slices, slice_rows
from lora_assets.records.dataset import Row
from lora_assets.records.grades import Differing
from tests.support.records import answers, grades
from tests.support.rows import make_row

TYPES = ("factual", "negative", "negative", "conceptual")
ROWS = [make_row(number, question_type) for number, question_type in enumerate(TYPES)]


def test_rows_that_differ_are_named_over_all_and_in_each_slice() -> None:
    given = {
        "candidate": answers("a", "I don't know.", "Does b.", "I don't know."),
        "live": answers("a", "I don't know.", "Not in the list.", "b"),
    }
    letters = [*grades("candidate", "AAC-"), *grades("live", "BAAC")]
    slices = slice_rows(ROWS, ["question_type"])
    every, factual, negative, conceptual = compare_slices(ROWS, given, letters, slices)
    assert every.a == Differing(rows=3, only_candidate=(0,), only_live=(2,))
    assert every.c == Differing(rows=3, only_candidate=(2,))
    assert every.refusals == Differing(rows=2, only_live=(2,))
    assert factual.name == "question_type=factual"
    assert factual.a == Differing(rows=1, only_candidate=(0,))
    assert negative.refusals == every.refusals
    assert conceptual.a.rows == 0


def many(key: str, values: int) -> list[Row]:
    return [
        row.model_copy(update={"metadata": type(row.metadata).model_validate({key: number})})
        for number, row in enumerate(make_row(number) for number in range(values))
    ]


def test_a_row_without_the_key_is_in_a_slice_of_its_own() -> None:
    rows = [*many("service", 2), make_row(2)]
    assert slice_rows(rows, ["service"]) == {
        "all rows": [0, 1, 2],
        "service=0": [0],
        "service=1": [1],
        "service=none": [2],
    }


@pytest.mark.parametrize(("key", "values"), [("service", 0), ("id", 51)])
def test_a_key_that_no_row_has_or_that_names_the_rows_is_refused(key: str, values: int) -> None:
    rows = many("id", 51)
    with pytest.raises(LoraAssetsError, match=f"sliced by '{key}': its rows have {values} values"):
        slice_rows(rows, [key])
