"""Ask a judge by chat in the way that it takes, and wait for it when it says so."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import httpx
from pydantic import BaseModel, JsonValue, ValidationError

from lora_assets.records import Record
from lora_assets.serving import http_client

LONGEST_WAIT = 300.0
"""Seconds that one request waits in all for a judge that says when to come again."""

_SHORTEST_WAIT = 0.5
_ENDS = ("stop", "stop_sequence", "eos", "eos_token")
_PATH = "/v1/chat/completions"

_SIGNS: Mapping[str, tuple[str, ...]] = {
    "max_tokens": ("max_completion_tokens", ": max_tokens", "'max_tokens'", '"max_tokens"'),
    "response_format": ("response_format", "json_schema", "structured output", "grammar"),
    "seed": ("seed",),
    "temperature": ("temperature",),
}
"""By which words of a refusal (400 or 422) a judge shows which option it does not take."""


class Reply(Record):
    """What a judge said. Its `content` counts only where it was not `cut_off`."""

    content: str | None
    reasoning: str | None
    cut_off: bool


class _Message(BaseModel):
    # null where the model refused or spent its tokens before it came to its reply
    content: str | None
    reasoning_content: str | None = None
    reasoning: str | None = None


class _Choice(BaseModel):
    message: _Message
    finish_reason: str | None = "stop"


class _ChatCompletion(BaseModel):
    choices: tuple[_Choice]


class _Failure(BaseModel):
    """What some servers send with 200 when they could not reply."""

    error: JsonValue


@dataclass
class Chat:
    """One judge's model. Options that it refuses are not sent to it again."""

    client: httpx.AsyncClient
    model: str
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    _refused: set[str] = field(default_factory=set)

    async def ask(self, messages: list[JsonValue], options: Mapping[str, JsonValue]) -> Reply:
        """Return the reply to one chat.

        A 429 or 503 with `Retry-After` is waited for, LONGEST_WAIT at most; what else may pass
        is asked again after RETRY_PAUSES. Raise LoraAssetsError, which names the judge, when it
        can't be reached, refuses, or sends something else than a chat completion of the model.
        """
        waited, pauses = 0.0, iter(http_client.RETRY_PAUSES)
        while True:
            body = {"model": self.model, "messages": messages, **self._taken(options)}
            request = self.client.build_request("POST", _PATH, json=body)
            told: float | None = None
            try:
                response = await self.client.send(request)
            except httpx.RequestError as error:
                failure = http_client.unreachable(request, error)
                may_pass = not http_client.is_unknown_host(error)
            else:
                if response.is_success and not _is_failure(response):
                    return _read(response, self.model)
                if (option := _refused_option(response, body)) is not None:
                    self._refused.add(option)
                    continue
                failure, told = http_client.refused(response), _retry_after(response)
                may_pass = response.status_code in (200, 429) or response.status_code >= 500
            pause = next(pauses, None) if told is None else max(told, _SHORTEST_WAIT)
            if not may_pass or pause is None or waited + pause > LONGEST_WAIT:
                raise failure
            waited += pause
            await self.sleep(pause)

    def _taken(self, options: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
        taken = {name: value for name, value in options.items() if name not in self._refused}
        if "max_tokens" in options and "max_tokens" in self._refused:
            taken["max_completion_tokens"] = options["max_tokens"]
        return taken


def _is_failure(response: httpx.Response) -> bool:
    try:
        return bool(_Failure.model_validate_json(response.content).error)
    except ValidationError:
        return False


def _read(response: httpx.Response, model: str) -> Reply:
    (choice,) = http_client.read(response, _ChatCompletion, model).choices
    message = choice.message
    return Reply(
        content=message.content,
        reasoning=message.reasoning_content or message.reasoning,
        cut_off=choice.finish_reason not in _ENDS,
    )


def _refused_option(response: httpx.Response, body: Mapping[str, JsonValue]) -> str | None:
    if response.status_code not in (400, 422):
        return None
    said = response.text.lower().replace("\\", "")
    if "context length" in said:  # such refusals name max_tokens, too
        return None
    for option, signs in _SIGNS.items():
        if option in body and any(sign in said for sign in signs):
            return option
    return None


def _retry_after(response: httpx.Response) -> float | None:
    """Return the seconds that the reply asks to wait; None where it says nothing readable."""
    told = response.headers.get("Retry-After", "")
    if told.isdecimal():
        return float(told)
    try:
        moment = parsedate_to_datetime(told).astimezone(UTC)
    except (ValueError, OverflowError):
        return None
    return max(0.0, (moment - datetime.now(UTC)).total_seconds())
