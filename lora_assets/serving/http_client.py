"""OpenAI-compatible HTTP: a client for a base URL, and its failures as one line each."""

import asyncio
import re
from typing import TypeVar

import httpx
from pydantic import BaseModel, JsonValue, ValidationError

from lora_assets.errors import LoraAssetsError

RETRY_PAUSES = (0.5, 2.0)
"""Seconds before the second and the third try, after a transport error, a 429 or a 5xx."""

_LOOPBACK = ("localhost", "127.0.0.1", "::1")
_LONGEST_MESSAGE = 300

Reply = TypeVar("Reply", bound=BaseModel)


class ServedModel(BaseModel):
    """One entry of /v1/models."""

    id: str


class ModelList(BaseModel):
    """The reply of /v1/models."""

    data: list[ServedModel]


def open_client(base_url: str, timeout: float, api_key: str | None = None) -> httpx.AsyncClient:
    """A client for one server; `timeout` in seconds holds for connecting and for each read.

    `base_url` comes without `/v1` (for example http://127.0.0.1:8000/judge). The key is sent
    as a bearer token and appears in no error. Proxies of the environment are used, except
    for this machine itself. Raises LoraAssetsError for a URL or key that can't be sent.
    """
    try:
        url = httpx.URL(base_url)
    except httpx.InvalidURL:
        url = httpx.URL("")
    if url.scheme not in ("http", "https") or not url.host or url.userinfo:
        raise LoraAssetsError(
            f"{_without_userinfo(base_url)!r} is not the URL of a server",
            "Give one like http://127.0.0.1:8000, without user and password.",
        )
    if api_key is not None and not re.fullmatch(r"[\x21-\x7e]+", api_key):
        raise LoraAssetsError(
            "The API key is empty or has characters that no key has", "Set the key again."
        )
    return httpx.AsyncClient(
        base_url=url,
        timeout=timeout,
        headers={"Authorization": f"Bearer {api_key}"} if api_key is not None else None,
        trust_env=url.host not in _LOOPBACK,
        # The caller's concurrency is the only limit: a pool would add its queue to latencies.
        limits=httpx.Limits(max_connections=None, max_keepalive_connections=None),
    )


def _without_userinfo(url: str) -> str:
    return re.sub(r"//[^/]*@", "//", url)


async def get(client: httpx.AsyncClient, path: str, reply: type[Reply]) -> Reply:
    """GET, as `ask`."""
    return await ask(client, client.build_request("GET", path), reply)


async def post(
    client: httpx.AsyncClient, path: str, body: dict[str, JsonValue], reply: type[Reply]
) -> Reply:
    """POST a JSON body, as `ask`."""
    return await ask(client, client.build_request("POST", path, json=body), reply)


async def ask(client: httpx.AsyncClient, request: httpx.Request, reply: type[Reply]) -> Reply:
    """Send the request and read its reply; retried after RETRY_PAUSES where that may help.

    Raises LoraAssetsError when the server can't be reached, refuses, or sends something
    else than a `reply`; a wrong reply is not asked for again.
    """
    for pause in (*RETRY_PAUSES, None):
        try:
            response = await client.send(request)
        except httpx.RequestError as error:
            failure = unreachable(request, error)
        else:
            if response.is_success:
                return _read(client, response, reply)
            failure = refused(client, response)
            if response.status_code != 429 and response.status_code < 500:
                break
        if pause is not None:
            await asyncio.sleep(pause)
    raise failure


def unreachable(request: httpx.Request, error: httpx.RequestError) -> LoraAssetsError:
    """The error for a request that got no reply, or only a part of one."""
    reason = str(error) or type(error).__name__
    return LoraAssetsError(
        f"{request.method} {_shown(request)} failed: {_one_line(reason)}",
        "Check that the server is running, at this URL and not overloaded.",
    )


def refused(client: httpx.AsyncClient, response: httpx.Response) -> LoraAssetsError:
    """The error for a reply (already read) whose status is not 2xx."""
    status = response.status_code
    if status in (401, 403):
        remedy = "Check the API key."
    elif status == 404:
        remedy = "Check that the model is served and that the URL is given without /v1."
    elif status == 429 or status >= 500:
        remedy = "Look into the server's log, then run again."
    else:
        remedy = "Check that the server takes such requests."
    request = response.request
    return LoraAssetsError(
        f"{request.method} {_shown(request)} got {status}: {server_message(client, response.text)}",
        remedy,
    )


def server_message(client: httpx.AsyncClient, body: str) -> str:
    """What an error body says (OpenAI's, vLLM's or FastAPI's form), in one line, keyless."""
    message = body
    try:
        error = _ErrorBody.model_validate_json(body)
    except ValidationError:
        pass
    else:
        nested = error.error.message if isinstance(error.error, _Message) else error.error
        message = nested or error.message or str(error.detail or body)
    key = client.headers.get("Authorization", "").removeprefix("Bearer ")
    if key:
        message = message.replace(key, "[API key]")
    return _one_line(message) or "(no message)"


class _Message(BaseModel):
    message: str


class _ErrorBody(BaseModel):
    error: _Message | str | None = None
    message: str | None = None
    detail: JsonValue = None


def _read(client: httpx.AsyncClient, response: httpx.Response, reply: type[Reply]) -> Reply:
    try:
        return reply.model_validate_json(response.content)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "body"
        request = response.request
        raise LoraAssetsError(
            f"{request.method} {_shown(request)} sent a reply that can't be read:"
            f" {where}: {_one_line(first['msg'])}",
            "Check that the URL is that of an OpenAI-compatible server.",
        ) from None


def _shown(request: httpx.Request) -> str:
    return str(request.url.copy_with(query=None, fragment=None))


def _one_line(text: str) -> str:
    line = " ".join(text.split()).rstrip(".")
    return line if len(line) <= _LONGEST_MESSAGE else f"{line[:_LONGEST_MESSAGE]}…"
