from collections.abc import Callable
from operator import itemgetter
from pathlib import Path
from typing import Any

import pytest
from fastapi.responses import JSONResponse

from lora_assets.errors import LoraAssetsError
from lora_assets.judging.answers import answer_all
from tests.support.asgi import with_client
from tests.support.doubles.model_server import ModelServer
from tests.support.rows import make_row

ROWS = [make_row(number) for number in range(20)]
EXPECTED = [f"answer to Q{number}" for number in range(20)]


def completion(text: str, finish_reason: str | None = "stop", **others: str) -> dict[str, Any]:
    return {"choices": [{"text": text, "finish_reason": finish_reason}], **others}


def completions(reply: Callable[[str, int], Any]) -> ModelServer:
    return ModelServer("/v1/completions", itemgetter("prompt"), reply)


def answer(server: ModelServer, journal: Path, model: str = "m", at_once: int = 15) -> list[str]:
    given = {"journal": journal, "progress": lambda done, total: None, "max_concurrent": at_once}
    answers = with_client(server.app, lambda client: answer_all(client, model, ROWS, **given))
    assert [answer.row for answer in answers] == list(range(len(ROWS)))
    return [answer.text for answer in answers]


def _echo(prompt: str, tries: int) -> Any:
    return completion(f"answer to {prompt}")


def test_every_row_is_asked_greedily_once_and_no_more_at_a_time_than_allowed(
    tmp_path: Path,
) -> None:
    server = completions(_echo)
    assert answer(server, tmp_path / "journal", at_once=3) == EXPECTED
    assert len(server.asked) == 20
    assert server.most_at_once == 3
    assert all(
        (body["temperature"], body["max_tokens"], body["model"]) == (0, 256, "m")
        for body in server.bodies
    )


def test_a_request_that_fails_twice_is_answered_at_the_third_try(tmp_path: Path) -> None:
    def flaky(prompt: str, tries: int) -> Any:
        return JSONResponse({}, 500) if tries < 3 else _echo(prompt, tries)

    assert answer(completions(flaky), tmp_path / "journal") == EXPECTED


@pytest.mark.parametrize(
    ("status", "said", "tries"), [(500, "with 500: out of memory", 3), (400, "too long", 1)]
)
def test_only_what_may_pass_is_repeated_and_a_failure_is_never_an_empty_answer(
    tmp_path: Path, status: int, said: str, tries: int
) -> None:
    error = JSONResponse({"error": said.rpartition(": ")[2]}, status)
    server = completions(lambda prompt, tries: error)
    with pytest.raises(LoraAssetsError, match=said):
        answer(server, tmp_path / "journal", at_once=1)
    assert len(server.asked) == tries


def test_an_empty_text_is_an_answer(tmp_path: Path) -> None:
    server = completions(lambda prompt, tries: completion(""))
    assert answer(server, tmp_path / "journal") == [""] * 20


@pytest.mark.parametrize(
    "reply", [completion("cut", "abort"), completion("cut", None), {"choices": []}]
)
def test_an_answer_that_was_cut_off_or_left_out_is_an_error(tmp_path: Path, reply: Any) -> None:
    with pytest.raises(LoraAssetsError, match="can't be read: choices"):
        answer(completions(lambda prompt, tries: reply), tmp_path / "journal")


def test_an_answer_of_another_model_is_an_error(tmp_path: Path) -> None:
    other = completions(lambda prompt, tries: completion("x", model="base"))
    with pytest.raises(LoraAssetsError, match="the model m was asked, and base answered"):
        answer(other, tmp_path / "journal", at_once=1)
    assert len(other.asked) == 1
    nameless = completions(lambda prompt, tries: JSONResponse(completion("x")))
    with pytest.raises(LoraAssetsError, match="can't be read: model"):
        answer(nameless, tmp_path / "journal")


def test_a_run_that_was_killed_goes_on_where_it_was(tmp_path: Path) -> None:
    journal = tmp_path / "journal"

    def dies(prompt: str, tries: int) -> Any:
        return _echo(prompt, tries) if int(prompt[1:]) < 12 else JSONResponse({}, 500)

    with pytest.raises(LoraAssetsError, match="with 500"):
        answer(completions(dies), journal, at_once=1)
    half_a_line = journal.read_bytes()[:40]
    with journal.open("ab") as file:
        file.write(half_a_line)

    server = completions(_echo)
    assert answer(server, journal) == EXPECTED
    assert server.asked == [f"Q{number}" for number in range(12, 20)]


def test_answers_of_another_model_are_not_taken_from_the_journal(tmp_path: Path) -> None:
    answer(completions(_echo), tmp_path / "journal", model="old")
    server = completions(_echo)
    answer(server, tmp_path / "journal", model="new")
    assert len(server.asked) == 20
