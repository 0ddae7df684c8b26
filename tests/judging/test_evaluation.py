import asyncio
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi.responses import JSONResponse

from lora_assets.errors import LoraAssetsError
from lora_assets.gates.evaluation import DecisionRule
from lora_assets.judging.evaluation import PROOFS, Evaluated, Evaluation
from lora_assets.judging.prompt import read_case
from lora_assets.records.grades import JudgeMeasure, Label, Side
from lora_assets.records.looks import Looks
from tests.support.doubles.model_server import ModelServer, said
from tests.support.rows import make_row

WORDS = tuple(f"{letter}{letter}" for letter in "abcdefghijkl")
ROWS = [
    make_row(n, "negative" if n % 4 == 3 else "factual", reference_answer=f"{word} {word}")
    for n, word in enumerate(WORDS)
]
RIGHT = [f"model/Q{number}" for number in range(len(ROWS))]


class Servers:
    """A model server whose answers name model and prompt, and a judge by the references."""

    def __init__(self) -> None:
        self.suffix = ""
        self.letter: str | JSONResponse | None = None
        self.events: list[str] = []
        self.server = ModelServer("/v1/completions", self._question, self._answer)
        self.judge = ModelServer("/v1/chat/completions", self._case, self._grade)

    @staticmethod
    def _question(body: dict[str, Any]) -> str:
        return f"{body['model']}/{body['prompt']}"

    @staticmethod
    def _case(body: dict[str, Any]) -> str:
        case = read_case(body["messages"][-1]["content"])
        assert case is not None
        return f"{case.reference_answer}|{case.answer}"

    def _answer(self, name: str, tries: int) -> Any:
        self.events.append(f"answer {name}")
        # Both models say the same to the first six rows.
        text = name if int(name.rpartition("Q")[2]) >= 6 else name.replace("live", "model")
        return {"choices": [{"text": text + self.suffix, "finish_reason": "stop"}]}

    def _grade(self, name: str, tries: int) -> Any:
        self.events.append(f"grade {name}")
        if isinstance(self.letter, JSONResponse):
            return self.letter
        reference, _, answer = name.partition("|")
        right = "A" if "/" in answer or answer == reference else "C"
        return said(json.dumps({"reason": "", "grade": self.letter or right}))

    def graded(self) -> list[str]:
        """The answers of models that the judge was asked about since the last call."""
        asked = [name.partition("|")[2] for name in self.judge.asked]
        self.judge.asked.clear()
        return [answer for answer in asked if "/" in answer]

    def answered(self) -> list[str]:
        asked = [*self.server.asked]
        self.server.asked.clear()
        return asked

    def evaluate(
        self, folder: Path, *, both: bool = False, url: str = "http://server", **options: Any
    ) -> Evaluated:
        sides: list[Side] = ["candidate", "live"] if both else ["candidate"]
        names = {"candidate": "model", "live": "live"}
        evaluation = Evaluation(
            ROWS,
            {side: names[side] for side in sides},
            {side: folder / names[side] / "answers.jsonl" for side in sides},
            folder / "grades.jsonl",
            progress=lambda what: lambda done, total: None,
            judge_model="judge",
            builds=("0.32.0", "1"),
            controls=0,
        )

        async def run() -> Evaluated:
            async with _client(self.server, url) as server, _client(self.judge, url) as judge:
                return await replace(evaluation, **options).run(server, judge)

        return asyncio.run(run())


def _client(server: ModelServer, url: str = "http://server") -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(server.app), base_url=url)


def test_a_row_is_judged_as_soon_as_it_is_answered(tmp_path: Path) -> None:
    servers = Servers()
    found = servers.evaluate(tmp_path, max_concurrent=1)
    assert [answer.text for answer in found.answers["candidate"]] == RIGHT
    assert [grade.letter for grade in found.grades] == ["A"] * len(ROWS)
    first_grade = next(n for n, event in enumerate(servers.events) if event.startswith("grade"))
    assert first_grade < len(ROWS)


def test_an_equal_answer_to_the_same_row_shares_its_grade(tmp_path: Path) -> None:
    servers = Servers()
    found = servers.evaluate(tmp_path, both=True)
    assert [(g.side, g.row) for g in found.grades] == [
        (side, row) for side in ("candidate", "live") for row in range(len(ROWS))
    ]
    assert len(servers.graded()) == len(ROWS) + len(ROWS) - 6
    assert found.kept == ()


def test_what_is_kept_is_proved_and_said_and_not_asked_again(tmp_path: Path) -> None:
    servers = Servers()
    servers.evaluate(tmp_path, both=True)
    servers.answered(), servers.graded()
    found = servers.evaluate(tmp_path, both=True)
    assert len(servers.answered()) == 2 * PROOFS
    assert len(servers.graded()) == PROOFS
    said = "; ".join(found.kept)
    assert "answers of candidate: 12 of 12 kept from 20" in said
    assert "answers of live: 12 of 12 kept" in said
    assert "(server 0.32.0 at http://server); --fresh asks anew" in said
    found = servers.evaluate(tmp_path, both=True, fresh=True)
    assert len(servers.answered()) == 2 * len(ROWS)
    assert len(servers.graded()) == 18
    assert found.kept == ()


def test_a_new_candidate_finds_the_answers_and_grades_of_live(tmp_path: Path) -> None:
    servers = Servers()
    servers.evaluate(tmp_path, both=True)
    servers.answered(), servers.graded()
    models: dict[Side, str] = {"candidate": "new", "live": "live"}
    answers = {"candidate": tmp_path / "new.jsonl", "live": tmp_path / "live" / "answers.jsonl"}
    servers.evaluate(tmp_path, models=models, answers=answers)
    assert len([name for name in servers.answered() if name.startswith("live")]) == PROOFS
    assert len(servers.graded()) == len(ROWS) + PROOFS


def test_answers_that_are_no_longer_given_are_dropped_with_all_others(tmp_path: Path) -> None:
    servers = Servers()
    servers.evaluate(tmp_path)
    servers.answered()
    servers.suffix = " now"
    found = servers.evaluate(tmp_path)
    assert {answer.text for answer in found.answers["candidate"]} == {f"{r} now" for r in RIGHT}
    assert "no longer what is said today" in found.kept[0]
    assert len(servers.answered()) == PROOFS + len(ROWS)


def test_grades_that_are_no_longer_given_are_dropped_with_all_others(tmp_path: Path) -> None:
    servers = Servers()
    servers.evaluate(tmp_path)
    servers.letter = "B"
    servers.graded()
    found = servers.evaluate(tmp_path)
    assert [grade.letter for grade in found.grades] == ["B"] * len(ROWS)
    assert len(servers.graded()) == len(ROWS)
    assert [grade.letter for grade in servers.evaluate(tmp_path).grades] == ["B"] * len(ROWS)


@pytest.mark.parametrize("other", [{"builds": ("0.33.0", "2")}, {"url": "http://other"}])
def test_what_another_server_said_is_not_taken_over(tmp_path: Path, other: dict[str, Any]) -> None:
    servers = Servers()
    servers.evaluate(tmp_path)
    servers.answered(), servers.graded()
    assert servers.evaluate(tmp_path, **other).kept == ()
    assert len(servers.answered()) == len(servers.graded()) == len(ROWS)
    servers.evaluate(tmp_path)
    assert len(servers.answered()) == len(servers.graded()) == PROOFS


def test_answers_go_on_when_the_judge_fails_and_the_next_evaluation_asks_for_grades_only(
    tmp_path: Path,
) -> None:
    servers = Servers()
    servers.letter = JSONResponse({"error": {"message": "loading"}}, 400)
    with pytest.raises(LoraAssetsError, match="with 400: loading"):
        servers.evaluate(tmp_path)
    assert sorted(servers.answered()) == sorted(RIGHT)
    servers.letter = None
    servers.evaluate(tmp_path)
    assert servers.answered() == []


def _measured(servers: Servers, folder: Path) -> JudgeMeasure:
    measured = servers.evaluate(folder, controls=12).measured
    assert measured is not None
    return measured


@pytest.mark.parametrize(
    ("letter", "rates"), [(None, (1.0, 1.0, 1.0)), ("A", (1.0, 0.0, 0.5)), ("B", (0, 0, 0))]
)
def test_the_judge_is_measured_by_answers_whose_grade_is_known(
    tmp_path: Path, letter: str | None, rates: tuple[float, float, float]
) -> None:
    servers = Servers()
    servers.letter = letter
    measured = _measured(servers, tmp_path)
    assert (measured.a_due, measured.c_due, measured.twice) == (4, 4, 4)
    assert (measured.sensitivity, measured.specificity, measured.accuracy) == rates
    assert measured.alike == 4
    # The judge of today is measured, whatever is kept.
    servers.letter = "A" if letter is None else letter
    assert _measured(servers, tmp_path).specificity == 0.0


def test_the_judge_is_held_against_people_who_graded_some_answers(tmp_path: Path) -> None:
    labels = [
        Label(row=0, answer="x", letter="C"),
        Label(row=1, answer="model/Q1", letter="A"),
        Label(row=2, answer="y", letter="A"),
        Label(row=2, answer="z", letter="C"),
    ]
    servers = Servers()
    measured = servers.evaluate(tmp_path, labels=labels).measured
    assert measured is not None
    assert (measured.labelled, measured.kappa) == (4, 0.5)
    assert "its kappa with people is 0.50, on 4 answers" in str(measured)
    assert len(servers.graded()) == len(ROWS)


def test_a_candidate_that_is_live_is_asked_once_for_both(tmp_path: Path) -> None:
    servers = Servers()
    models: dict[Side, str] = {"candidate": "model", "live": "model"}
    answers = dict.fromkeys(models, tmp_path / "answers.jsonl")
    counted: list[tuple[Side, int]] = []
    note: Callable[[Side, int], None] = lambda side, count: counted.append((side, count))  # noqa: E731
    found = servers.evaluate(tmp_path, models=models, answers=answers, answered=note)
    assert len(servers.answered()) == len(servers.graded()) == len(ROWS)
    assert len(found.grades) == 2 * len(ROWS)
    assert counted == [("candidate", 12), ("live", 12)]


MANY = [make_row(number, reference_answer=f"{number}") for number in range(100)]


@pytest.mark.parametrize(
    ("letter", "margin", "looks"),
    [
        (None, 0.3, Looks(of=100, at=(20, 40), ended="passed")),
        ("C", 0.3, Looks(of=100, at=(20, 40), ended="passed")),
        (None, 0.03, Looks(of=100, at=(20, 40, 60, 80, 100))),
    ],
)
def test_judging_ends_with_the_group_of_rows_that_decides(
    tmp_path: Path, letter: str | None, margin: float, looks: Looks
) -> None:
    servers = Servers()
    servers.letter = letter
    rule = DecisionRule(decision_rule="paired", a_margin=margin, c_margin=margin)
    found = servers.evaluate(tmp_path, both=True, rows=MANY, sequential=rule, controls=6)
    assert found.looks == looks
    assert [len(found.answers[side]) for side in ("candidate", "live")] == [100, 100]
    assert len(found.judged) == looks.at[-1]
    assert [*found.judged] != [*range(40)]
    assert [(each.side, each.row) for each in found.grades] == [
        (side, row) for side in ("candidate", "live") for row in found.judged
    ]
    assert found.measured is not None
    assert found.measured.twice == 2
    asked = {answer.rpartition("Q")[2] for answer in servers.graded()}
    assert asked == {str(row) for row in found.judged}
    again = servers.evaluate(tmp_path, both=True, rows=MANY, sequential=rule)
    assert (again.judged, len(servers.graded())) == (found.judged, PROOFS)


def test_every_row_is_judged_without_live_or_a_sequential_rule(tmp_path: Path) -> None:
    rule = DecisionRule(decision_rule="paired", a_margin=0.3, c_margin=0.3)
    for options in ({"both": False, "sequential": rule}, {"both": True}):
        found = Servers().evaluate(tmp_path, rows=MANY, **options)
        assert found.looks is None
        assert [*found.judged] == [*range(100)]
