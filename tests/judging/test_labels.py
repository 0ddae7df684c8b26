import random
from collections.abc import Sequence

import pytest

from lora_assets.errors import LoraAssetsError
from lora_assets.judging.labels import corrected, kappa, parse_labels
from lora_assets.records.grades import Answer, Corrected, Grade, Label, Letter, Side


def test_kappa_is_that_of_cohens_definition() -> None:
    # 20 yes/yes, 5 yes/no, 10 no/yes, 15 no/no: the example of Wikipedia's page, 0.4.
    counts: dict[tuple[Letter, Letter], int] = {
        ("A", "A"): 20,
        ("A", "C"): 5,
        ("C", "A"): 10,
        ("C", "C"): 15,
    }
    pairs = [pair for pair, count in counts.items() for _ in range(count)]
    assert kappa(pairs) == pytest.approx(0.4)
    assert kappa([("A", "A"), ("B", "B"), ("C", "C")]) == 1
    assert kappa([("A", None), ("C", "A")]) == pytest.approx(-1 / 3)
    assert kappa([("A", "A")] * 3) is None
    assert kappa([]) is None


def test_labels_are_read_by_line() -> None:
    content = b'{"row": 0, "answer": "x", "letter": "B"}\n\n{"row": 2, "answer": "", "letter": "C"}'
    assert parse_labels(content, 3, "file") == [
        Label(row=0, answer="x", letter="B"),
        Label(row=2, answer="", letter="C"),
    ]


@pytest.mark.parametrize(
    ("line", "cause"),
    [
        ("{}", "row: Field required"),
        ('{"row": 3, "answer": "x", "letter": "A"}', "row is not one of 0 to 2"),
        ('{"row": 0, "answer": "x", "letter": "D"}', "letter: Input should be"),
        ('{"row": 0, "answer": "x", "letter": "B"}', "the same answer has another letter before"),
        ("oops", "Invalid JSON"),
    ],
)
def test_a_line_that_is_no_label_is_named(line: str, cause: str) -> None:
    first = '{"row": 0, "answer": "x", "letter": "A"}'
    with pytest.raises(LoraAssetsError, match=f"file line 2: {cause}"):
        parse_labels(f"{first}\n{line}".encode(), 3, "file")


def by_people(
    truth: Sequence[tuple[Letter, Letter]], judged: Sequence[tuple[Letter, Letter]], count: int
) -> Sequence[Corrected]:
    """What people's true grades of the first rows make of the judge's; (candidate, live) each.

    Answers differ where their true grades do.
    """
    sides: tuple[Side, Side] = ("candidate", "live")
    answers: dict[Side, list[Answer]] = {side: [] for side in sides}
    grades, labels = [], []
    for row, (true, given) in enumerate(zip(truth, judged, strict=True)):
        for side, right, letter in zip(sides, true, given, strict=True):
            text = f"answer {right}"
            answers[side].append(Answer(row=row, text=text, latency=0.1))
            grades.append(Grade(row=row, side=side, letter=letter, reason=""))
            if row < count:
                labels.append(Label(row=row, answer=text, letter=right))
    return corrected(answers, grades, labels)


def test_people_correct_what_a_judge_gets_wrong() -> None:
    """The judge takes half of the candidate's wrong answers for right ones."""
    rng = random.Random(3)
    truth: list[tuple[Letter, Letter]] = []
    judged: list[tuple[Letter, Letter]] = []
    for _ in range(2000):
        right: Letter = "C" if rng.random() < 0.2 else "A"
        truth.append((right, "A"))
        judged.append(("A" if rng.random() < 0.5 else right, "A"))
    a_rate, c_rate = by_people(truth, judged, 1000)
    exact = sum(own == "C" for own, _ in truth) / 2000
    assert abs(sum(own == "C" for own, _ in judged) / 2000 - exact) > 0.05
    assert abs(a_rate.estimate + exact) < 2 * a_rate.error < 0.04
    assert c_rate.estimate == pytest.approx(-a_rate.estimate)
    assert 150 < a_rate.rows < 250
    assert str(a_rate).startswith(f"a_rate {a_rate.estimate:+.3f} against live by people's grades")


def test_without_two_rows_whose_answers_people_graded_nothing_is_corrected() -> None:
    truth: list[tuple[Letter, Letter]] = [("A", "A"), ("C", "A"), ("A", "C")]
    assert by_people(truth, truth, 2) == ()
    found = by_people(truth, truth, 3)
    assert [(each.measure, each.estimate, each.rows) for each in found] == [
        ("a_rate", 0.0, 2),
        ("c_rate", 0.0, 2),
    ]
