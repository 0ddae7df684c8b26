"""Grades and refusals, counted for one side."""

from collections import Counter
from collections.abc import Sequence
from typing import get_args

from lora_assets.errors import LoraAssetsError
from lora_assets.judging.refusals import declines
from lora_assets.records.dataset import Row
from lora_assets.records.grades import Answer, Grade, Letter, Scores, Side


def scores(
    rows: Sequence[Row],
    answers: Sequence[Answer],
    grades: Sequence[Grade],
    side: Side,
    judged: Sequence[int] | None = None,
) -> Scores:
    """Count one side's letters, and how many of the negatives were declined.

    `answers` are that side's; `grades` may hold both sides'. Raise LoraAssetsError unless
    every row has exactly one answer, and each of those `judged` (None: all) one grade (an ungraded
    one counts as a grade).
    """
    if not rows:
        raise LoraAssetsError("The eval split has no rows", "Build the data version again.")
    own = [grade for grade in grades if grade.side == side]
    every = range(len(rows))
    due = every if judged is None else judged
    for what, given, wanted in (("answer", answers, every), ("grade", own, due)):
        if Counter(record.row for record in given) != Counter(wanted):
            raise LoraAssetsError(
                f"The {side}'s {what}s don't match the eval split:"
                f" {len(given)} for {len(wanted)} rows, one {what} per row is needed",
                "Run the evaluation again.",
            )
    counted = Counter(grade.letter for grade in own)
    negatives = [answer for answer in answers if rows[answer.row].is_negative]
    return Scores(
        letters={letter: counted[letter] for letter in get_args(Letter)},
        ungraded=counted[None],
        negatives=len(negatives),
        refusals=sum(declines(answer.text) for answer in negatives),
    )
