from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest
from fastapi.responses import JSONResponse

from lora_assets.errors import LoraAssetsError
from lora_assets.judging.chat import LONGEST_WAIT, Chat, Reply
from tests.support.asgi import with_client
from tests.support.doubles.model_server import ModelServer, said

OPTIONS = {"max_tokens": 512, "response_format": {}, "seed": 0, "temperature": 0}


def refusal(status: int, message: str, **headers: str) -> JSONResponse:
    return JSONResponse({"error": {"message": message}}, status, headers)


def ask(reply: Callable[[int], Any], questions: int = 1) -> tuple[Reply, ModelServer, list[float]]:
    """Ask one after another; return the last reply, the judge, and for how long it was waited."""
    waits: list[float] = []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)

    judge = ModelServer("/v1/chat/completions", lambda body: "", lambda _, tries: reply(tries))

    async def asked(client: Any) -> Reply:
        chat = Chat(client, "judge", sleep)
        replies = [await chat.ask([], OPTIONS) for _ in range(questions)]
        return replies[-1]

    return with_client(judge.app, asked), judge, waits


@pytest.mark.parametrize(
    ("option", "refused"),
    [
        ("response_format", "response_format type json_schema is unavailable"),
        ("seed", "Unrecognized request argument: seed"),
        ("temperature", "Unsupported value: 'temperature' does not support 0"),
        ("max_tokens", "Unrecognized request argument supplied: max_tokens"),
        ("max_tokens", '{"loc": ["body", "max_tokens"], "msg": "Extra inputs are not permitted"}'),
        ("max_tokens", "Unsupported: 'max_tokens'. Use 'max_completion_tokens' instead."),
    ],
)
def test_an_option_that_the_judge_refuses_is_left_out_from_then_on(
    option: str, refused: str
) -> None:
    reply, judge, _ = ask(lambda n: refusal(400, refused) if n == 1 else said("x"), questions=2)
    assert reply.content == "x"
    assert [option in body for body in judge.bodies] == [True, False, False]
    for body in judge.bodies[1:]:
        assert set(OPTIONS) - {option} <= set(body)
        assert (body.get("max_completion_tokens") == 512) == (option == "max_tokens")


def test_a_context_that_is_too_short_is_the_judge_s_fault_and_no_option_s() -> None:
    message = "maximum context length is 512 tokens: reduce max_tokens or max_completion_tokens"
    with pytest.raises(LoraAssetsError, match=r"chat/completions with 400: maximum context"):
        ask(lambda n: refusal(400, message))


@pytest.mark.parametrize("status", [429, 503])
def test_the_judge_is_waited_for_as_long_as_it_says(status: int) -> None:
    busy = refusal(status, "busy", **{"Retry-After": "20"})
    reply, _judge, waits = ask(lambda n: busy if n <= 5 else said("x"))
    assert reply.content == "x"
    assert waits == [20.0] * 5


def test_the_judge_may_name_the_moment_to_come_again() -> None:
    moment = format_datetime(datetime.now(UTC) + timedelta(seconds=200), usegmt=True)
    busy = refusal(503, "busy", **{"Retry-After": moment})
    _, _, (wait,) = ask(lambda n: busy if n == 1 else said("x"))
    assert 0 < wait <= 200


def test_a_moment_that_no_calendar_has_is_no_moment_and_no_error_is_none() -> None:
    busy = refusal(503, "busy", **{"Retry-After": "Fri, 31 Dec 9999 23:59:59 -1200"})
    _, _, waits = ask(lambda n: busy if n == 1 else {**said("x"), "error": False})
    assert len(waits) == 1


@pytest.mark.parametrize(("told", "tries"), [("100", 4), ("301", 1)])
def test_no_request_waits_longer_than_is_borne(told: str, tries: int) -> None:
    asked: list[int] = []

    def busy(number: int) -> JSONResponse:
        asked.append(number)
        return refusal(429, "Rate limit reached", **{"Retry-After": told})

    with pytest.raises(LoraAssetsError, match="with 429: Rate limit reached"):
        ask(busy)
    assert len(asked) == tries
    assert (tries - 1) * float(told) <= LONGEST_WAIT


def test_an_error_that_comes_with_200_is_asked_again_and_then_named() -> None:
    overloaded = JSONResponse({"error": {"message": "overloaded", "code": 529}})
    assert ask(lambda n: overloaded if n < 3 else said("x"))[0].content == "x"
    with pytest.raises(LoraAssetsError, match="overloaded"):
        ask(lambda n: overloaded)


def test_what_was_cut_off_is_told_from_what_was_said() -> None:
    assert ask(lambda n: said("x"))[0] == Reply(content="x", reasoning=None, cut_off=False)
    cut = ask(lambda n: said(None, "length", reasoning_content="hm"))[0]
    assert cut == Reply(content=None, reasoning="hm", cut_off=True)


def test_a_reply_of_another_model_is_refused_and_one_of_a_version_of_it_is_not() -> None:
    dated = ask(lambda n: {**said("x"), "model": "judge-2026-11-28"})
    assert dated[0].content == "x"
    for other in ("evil", "judge-mini", "judge-2-mini"):
        reply = {**said("x"), "model": other}
        with pytest.raises(LoraAssetsError, match=rf"{other} answered\. .*--judge-model"):
            ask({1: reply}.__getitem__)
