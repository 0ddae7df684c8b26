import pytest

from lora_assets.errors import LoraAssetsError
from lora_assets.judging.scores import scores
from lora_assets.records.grades import Answer, Grade
from tests.support.records import answers, grades
from tests.support.rows import make_row

TYPES = ("factual", "negative", "negative", "conceptual")
ROWS = [make_row(number, question_type) for number, question_type in enumerate(TYPES)]
ANSWERS = answers("Does a.", "I don't know.", "Does b.", "not in the list")
GRADES = grades("candidate", "AAC-")


def test_letters_ungraded_and_declined_negatives_are_counted_for_one_side() -> None:
    live = grades("live", "CCCC")
    counted = scores(ROWS, ANSWERS, [*live, *GRADES], "candidate")
    assert counted.letters == {"A": 2, "B": 0, "C": 1}
    assert counted.ungraded == 1
    assert (counted.negatives, counted.refusals) == (2, 1)
    assert counted.a_rate == pytest.approx(2 / 3)


def test_without_negatives_the_refusal_rate_is_missing_and_without_rows_there_is_none() -> None:
    assert scores(ROWS[:1], ANSWERS[:1], GRADES[:1], "candidate").refusal_rate is None
    with pytest.raises(LoraAssetsError, match="no rows"):
        scores([], [], [], "candidate")


@pytest.mark.parametrize(
    ("given", "letters"),
    [
        (ANSWERS[:3], GRADES),
        (ANSWERS, GRADES[:3]),
        (ANSWERS, [*GRADES, GRADES[0]]),
        (ANSWERS, grades("live", "AAAA")),
    ],
)
def test_a_row_without_exactly_one_answer_and_grade_is_an_error(
    given: list[Answer], letters: list[Grade]
) -> None:
    with pytest.raises(LoraAssetsError, match="don't match the eval split"):
        scores(ROWS, given, letters, "candidate")


def test_rates_are_of_the_rows_that_were_judged_and_refusals_of_all_negatives() -> None:
    counted = scores(ROWS, ANSWERS, GRADES[:2], "candidate", [0, 1])
    assert (counted.graded, counted.negatives, counted.refusals) == (2, 2, 1)
    with pytest.raises(LoraAssetsError, match="2 for 3 rows"):
        scores(ROWS, ANSWERS, GRADES[:2], "candidate", [0, 1, 2])
