"""Answers whose grade is known."""

from lora_assets.judging.controls import controls
from lora_assets.records.dataset import Row
from tests.support.rows import make_line


def test_where_one_context_answers_every_question_the_wrong_answers_are_those_to_negatives() -> (
    None
):
    texts = {"context": "A costs 3 euros, B opens at nine.", "reference_answer": "3 euros"}
    lines = [make_line(number, **texts) for number in range(9)]
    negative = {**texts, "reference_answer": "It is not in the list."}
    lines.append(make_line(9, question_type="negative", **negative))
    known = controls([*map(Row.model_validate_json, lines)], 3)
    assert [each.row for each in known["A"]] == [0, 3, 6]
    assert [(each.row, each.text) for each in known["C"]] == [(9, "3 euros")]
