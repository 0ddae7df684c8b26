import asyncio
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from fastapi.responses import JSONResponse

from lora_assets.embedded.judge_app import LEXICAL_JUDGE, create_judge_app
from lora_assets.errors import LoraAssetsError
from lora_assets.judging.grading import Grader, find_judge_model
from lora_assets.judging.journal import Journal, Reuse
from lora_assets.judging.prompt import JudgeCase, judge_messages, read_case
from lora_assets.records.grades import Answer, Grade, Side
from tests.support.asgi import with_client
from tests.support.doubles.model_server import ModelServer, said
from tests.support.rows import make_row

GOOD = json.dumps({"reason": "fine", "grade": "A"})
ROWS = [
    make_row(
        number,
        "negative" if number == 3 else "factual",
        context=f"Op{number}: Does the {number}th thing with great care.",
        question=f"What does Op{number} do?",
        reference_answer=f"Does the {number}th thing with great care.",
    )
    for number in range(4)
]
CANDIDATE = [
    Answer(row=number, text=text, latency=0.1)
    for number, text in enumerate(
        [ROWS[0].reference_answer, "Starts a virtual machine.", "Does the thing", "I don't know."]
    )
]
LIVE = [answer.model_copy(update={"text": "live " + answer.text}) for answer in CANDIDATE]


def judge_double(reply: Callable[[str, int], str | JSONResponse | None]) -> ModelServer:
    """A judge that replies as told per answer and try."""

    def graded(body: dict[str, Any]) -> str:
        case = read_case(body["messages"][-1]["content"])
        assert case is not None
        return case.answer

    def chat(answer: str, tries: int) -> Any:
        content = reply(answer, tries)
        return content if isinstance(content, JSONResponse) else said(content)

    return ModelServer("/v1/chat/completions", graded, chat)


def _grade(
    app: FastAPI, journal: Path, answers: Mapping[Side, list[Answer]] | None = None
) -> tuple[Grade, ...]:
    of = answers or {"candidate": CANDIDATE}

    async def grade(client: httpx.AsyncClient) -> tuple[Grade, ...]:
        with Journal(journal, Grade) as kept:
            grader = Grader(client, LEXICAL_JUDGE, ROWS, kept, 15, Reuse())
            cases = ((side, answer) for side, own in of.items() for answer in own)
            return (*await asyncio.gather(*(grader.grade(*case) for case in cases)),)

    return with_client(app, grade)


def test_both_sides_are_graded_by_the_lexical_judge_over_its_chat_api(tmp_path: Path) -> None:
    grades = _grade(create_judge_app(), tmp_path / "j", {"candidate": CANDIDATE, "live": LIVE})
    assert [(grade.side, grade.row) for grade in grades] == [
        (side, row) for side in ("candidate", "live") for row in range(4)
    ]
    assert [grade.letter for grade in grades[:4]] == ["A", "C", "B", "A"]


def test_an_unreadable_grade_is_asked_for_again_with_other_sampling(tmp_path: Path) -> None:
    judge = judge_double(lambda answer, tries: GOOD if tries == 3 else "I'd say A")
    grades = _grade(judge.app, tmp_path / "j", {"candidate": CANDIDATE[:1]})
    assert [grade.letter for grade in grades] == ["A"]
    sampling = [(body["seed"], body["temperature"] > 0) for body in judge.bodies]
    assert sampling == [(0, False), (1, True), (2, True)]


@pytest.mark.parametrize("garbage", ["All of them deserve an A.", "", None])
def test_a_judge_that_always_talks_garbage_leaves_answers_ungraded(
    tmp_path: Path, garbage: str | None
) -> None:
    judge = judge_double(lambda answer, tries: garbage)
    grades = _grade(judge.app, tmp_path / "j")
    assert [grade.letter for grade in grades] == [None] * 4
    assert len(judge.asked) == 12
    assert all("no readable grade in 3 replies" in grade.reason for grade in grades)


def test_a_judge_that_thinks_gets_more_tokens_and_its_thoughts_are_no_grade(tmp_path: Path) -> None:
    thought = said(None, "length", reasoning_content=GOOD)
    thinking = JSONResponse({"model": LEXICAL_JUDGE, **thought})
    judge = judge_double(lambda answer, tries: GOOD if tries == 3 else thinking)
    assert _grade(judge.app, tmp_path / "j", {"candidate": CANDIDATE[:1]})[0].letter == "A"
    assert [body["max_tokens"] for body in judge.bodies] == [512, 2048, 8192]
    judge = judge_double(lambda answer, tries: thinking)
    (grade,) = _grade(judge.app, tmp_path / "k", {"candidate": CANDIDATE[:1]})
    assert grade.letter is None
    assert "nothing but thoughts" in grade.reason


def test_a_killed_grading_goes_on_and_asks_again_only_for_what_has_no_grade(tmp_path: Path) -> None:
    last = CANDIDATE[3].text
    first = judge_double(lambda answer, tries: "garbage" if answer == last else GOOD)
    assert _grade(first.app, tmp_path / "j")[3].letter is None
    second = judge_double(lambda answer, tries: GOOD)
    assert [grade.letter for grade in _grade(second.app, tmp_path / "j")] == ["A"] * 4
    assert second.asked == [last]


def _find(names: list[str]) -> str:
    app = FastAPI()

    @app.get("/v1/models")
    async def models() -> Any:
        return {"data": [{"id": name} for name in names]}

    return with_client(app, find_judge_model)


def test_the_judge_model_is_found_where_there_is_just_one() -> None:
    assert _find(["llama"]) == "llama"
    assert with_client(create_judge_app(), find_judge_model) == LEXICAL_JUDGE
    with pytest.raises(LoraAssetsError, match="serves no model"):
        _find([])
    with pytest.raises(LoraAssetsError, match=r"llama, mistral.*--judge-model"):
        _find(["llama", "mistral"])


def _post(body: dict[str, Any]) -> httpx.Response:
    return with_client(
        create_judge_app(), lambda client: client.post("/v1/chat/completions", json=body)
    )


CASE = judge_messages(
    JudgeCase(question_type="factual", question="q", context="c", reference_answer="r", answer="r")
)


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"model": LEXICAL_JUDGE, "messages": [{"role": "user", "content": "Hi"}]}, 400),
        ({"model": LEXICAL_JUDGE, "messages": []}, 400),
        ({"model": LEXICAL_JUDGE}, 400),
        ({"model": LEXICAL_JUDGE, "messages": CASE, "stream": True}, 400),
        ({"model": "gpt", "messages": CASE}, 404),
    ],
)
def test_the_lexical_judge_refuses_what_it_can_not_grade_as_openai_would(
    body: dict[str, Any], status: int
) -> None:
    response = _post(body)
    assert response.status_code == status
    assert response.json()["error"]["message"]


def test_the_lexical_judge_replies_in_openais_form() -> None:
    reply = _post({"model": LEXICAL_JUDGE, "messages": CASE}).json()
    assert (reply["object"], reply["model"]) == ("chat.completion", LEXICAL_JUDGE)
    assert reply["choices"][0]["finish_reason"] == "stop"
    assert json.loads(reply["choices"][0]["message"]["content"])["grade"] == "A"
    assert reply["usage"]["total_tokens"] > reply["usage"]["completion_tokens"] > 0
