from collections.abc import Mapping
from typing import Any, ClassVar, cast

from mlflow import MlflowClient

from lora_assets.assets.eval_tables import (
    SHOWN_EXAMPLES,
    examples_table,
    log_grades,
    rates,
    scores_table,
)
from lora_assets.records.grades import Answer, Grade, Scores, Side
from lora_assets.resources.tracked_run import TrackedRun
from tests.support.records import answers, grades
from tests.support.rows import make_row


def table(**letters: str) -> list[dict[str, object]]:
    """The examples of sides whose letters are given in a string, a dash for an ungraded one."""
    count = len(next(iter(letters.values())))
    sides: dict[Side, str] = {s: letters[s] for s in ("candidate", "live") if s in letters}
    said = {side: answers(*(f" {side} {i}" for i in range(count))) for side in sides}
    graded = [each for side, given in sides.items() for each in grades(side, given)]
    shown = examples_table([make_row(i) for i in range(count)], said, graded)
    return [dict(record.data) for record in shown.records]


def test_the_rows_that_differ_most_come_first_with_a_line_for_each_text() -> None:
    shown = table(candidate="ABCA-", live="ACAAA")
    assert [(r["candidate is"], r["text"]) for r in shown[::4]] == [
        ("worse", "question 4"),
        ("worse", "question 2"),
        ("better", "question 1"),
        ("level", "question 0"),
        ("level", "question 3"),
    ]
    assert [tuple(r.values()) for r in shown[1:5]] == [
        ("", "reference", "", "Does a."),
        ("", "candidate", "ungraded", "candidate 4"),
        ("", "live", "A", "live 4"),
        ("worse", "question", "", "question 2"),
    ]


def test_without_live_the_worst_rows_come_first() -> None:
    shown = table(candidate="ABC" * 5)
    assert [r["grade"] for r in shown[2::3]] == ["C"] * 5 + ["B"] * (SHOWN_EXAMPLES - 5)
    assert {r["what"] for r in shown} == {"question", "reference", "candidate"}


def test_scores_stand_side_by_side_and_a_missing_rate_is_named() -> None:
    counted: Mapping[Side, Scores] = {
        "candidate": Scores(letters={"A": 3, "B": 0, "C": 1}, ungraded=0, negatives=0, refusals=0),
        "live": Scores(letters={"A": 1, "B": 1, "C": 2}, ungraded=0, negatives=2, refusals=1),
    }
    assert [tuple(record.data.values()) for record in scores_table(counted).records] == [
        ("A-rate", "75.0%", "25.0%"),
        ("C-rate", "25.0%", "50.0%"),
        ("refusal rate", "missing", "50.0%"),
        *(("graded A", "3", "1"), ("graded B", "0", "1"), ("graded C", "1", "2")),
        ("ungraded", "0", "0"),
        ("refusals", "0 of 0", "1 of 2"),
    ]
    assert "candidate_refusal_rate" not in rates(counted)
    assert rates(counted)["live_a_rate"] == 0.25


class Kept(TrackedRun):
    """A run that keeps its tables here."""

    tables: ClassVar[dict[str, list[Mapping[str, Any]]]] = {}

    def metrics(self, values: Mapping[str, float], step: int = 0) -> None:
        pass

    def table(self, rows: list[Mapping[str, Any]], name: str) -> None:
        self.tables[name] = rows


def test_in_mlflow_candidate_and_live_stand_side_by_side_in_a_row() -> None:
    said: Mapping[Side, list[Answer]] = {
        "candidate": answers("candidate says"),
        "live": answers("live says"),
    }
    given = [
        Grade(row=0, side="live", letter=None, reason="unread"),
        Grade(row=0, side="candidate", letter="B", reason="partly"),
    ]
    log_grades(Kept("run", cast(MlflowClient, None)), [make_row(7)], said, given, {})
    assert Kept.tables["grades"] == [
        {
            "row": 0,
            "question": "question 7",
            "reference_answer": "Does a.",
            **{"candidate_grade": "B", "candidate_answer": "candidate says"},
            "candidate_reason": "partly",
            **{"live_grade": "ungraded", "live_answer": "live says", "live_reason": "unread"},
        }
    ]
