"""Answers whose grade is known, by which the judge is measured in every evaluation."""

from collections.abc import Mapping, Sequence
from itertools import islice

from lora_assets.judging.labels import kappa
from lora_assets.records.dataset import Row
from lora_assets.records.grades import Answer, JudgeMeasure, Letter


def controls(rows: Sequence[Row], count: int) -> Mapping[Letter, Sequence[Answer]]:
    """Return up to `count` answers for which an A is due, and as many for which a C is.

    An A is due to a row's own reference. A C is due to the reference of another row, the one
    least like the row's own; on a negative, to any that answers. Rows are spread over the split;
    where one has no wrong answer, a negative comes in its place.
    """
    answering = [row for row in rows if not row.is_negative]
    chosen = _spread(range(len(rows)), count)
    negatives = _spread([n for n, row in enumerate(rows) if row.is_negative], count)
    wrong = (
        Answer(row=n, text=text, latency=0)
        for n in dict.fromkeys((*chosen, *negatives))
        if (text := _least_like(rows[n], answering)) is not None
    )
    return {
        "A": [Answer(row=n, text=rows[n].reference_answer, latency=0) for n in chosen],
        "C": [*islice(wrong, count)],
    }


def repeats(answers: Sequence[Answer], count: int) -> Sequence[Answer]:
    """Return up to `count` of the answers, spread over all: those that are graded twice."""
    return [answers[number] for number in _spread(range(len(answers)), count)]


def measure(
    due: Mapping[Letter, Sequence[Letter | None]],
    twice: Sequence[tuple[Letter | None, Letter | None]],
    people: Sequence[tuple[Letter, Letter | None]] = (),
) -> JudgeMeasure | None:
    """Return how the judge did, by the letters that it gave where each was due; None of none.

    `people` has a person's letter and the judge's for the same answer.
    """
    if not (due["A"] or due["C"] or people):
        return None
    return JudgeMeasure(
        a_due=len(due["A"]),
        a_given=list(due["A"]).count("A"),
        c_due=len(due["C"]),
        c_given=list(due["C"]).count("C"),
        twice=len(twice),
        alike=sum(first is not None and first == second for first, second in twice),
        labelled=len(people),
        kappa=kappa(people),
    )


def _spread(numbers: Sequence[int], count: int) -> Sequence[int]:
    count = min(count, len(numbers))
    return [numbers[place * len(numbers) // count] for place in range(count)]


def _least_like(row: Row, others: Sequence[Row]) -> str | None:
    """Return the reference that shares the smallest part of its words with the row's own."""
    own = set(row.reference_answer.lower().split())
    context = row.context.lower()

    def likeness(text: str) -> float:
        words = set(text.lower().split())
        return len(words & own) / max(len(words), 1) + (text.lower().strip() in context)

    texts = [other.reference_answer for other in others]
    wrong = min(texts, key=likeness, default=None)
    if wrong is None or row.is_negative:
        return wrong
    return None if likeness(wrong) >= _TOO_LIKE else wrong


_TOO_LIKE = 0.5
