"""OpenAI-compatible HTTP: clients of a model server, and its failures as one line each."""

import asyncio
import re
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import httpx
from pydantic import AliasChoices, AliasPath, BaseModel, Field, JsonValue, ValidationError

from lora_assets.errors import LoraAssetsError, validation_line
from lora_assets.serving.bounded_client import LOOPBACK, WHOLE_REPLY, BoundedClient, run_apart

RETRY_PAUSES = (0.5, 2.0)
"""Seconds before the second and the third try, after a transport error, a 429 or a 5xx."""

_LONGEST_MESSAGE = 300
_SERVER = "lora_assets.server"  # Under this name a request carries the server that it is for.

Reply = TypeVar("Reply", bound=BaseModel)


@dataclass(frozen=True)
class Server:
    """How errors call a server, and the settings that give its URL and its key."""

    name: str
    url_setting: str
    key_setting: str


VLLM = Server("vLLM", "--vllm-url", "VLLM_API_KEY")


def open_client(
    base_url: str,
    timeout: float,
    api_key: str | None = None,
    server: Server = VLLM,
    deadline: float | None = None,
) -> BoundedClient:
    """Return a client for one server; `timeout` in seconds holds for connecting and each read.

    A whole reply may take `deadline` seconds, by default WHOLE_REPLY times that.

    `base_url` comes without `/v1` (for example http://127.0.0.1:8000/judge). The key is sent
    as a bearer token and appears in no error. Proxies of the environment are used, except
    for this machine itself. Raise LoraAssetsError for a URL or key that can't be sent.
    """
    try:
        url = httpx.URL(base_url)
    except httpx.InvalidURL:
        url = httpx.URL("")
    possible = url.scheme in ("http", "https") and url.host and (url.port or 0) <= 65535
    if not possible or url.userinfo:
        raise LoraAssetsError(
            f"{base_url!r} is not the URL of a server",
            f"Set {server.url_setting} to one like http://127.0.0.1:8000, without user and "
            "password.",
        )
    if not re.fullmatch(r"[\x21-\x7e]*", api_key or ""):
        raise LoraAssetsError(
            f"The API key for {base_url} has characters that no key has",
            f"Set {server.key_setting} again, without line breaks.",
        )

    async def name(request: httpx.Request) -> None:
        request.extensions[_SERVER] = server, base_url.rstrip("/")

    return BoundedClient(
        deadline or WHOLE_REPLY * timeout,
        base_url=url,
        timeout=timeout,
        headers={"Authorization": f"Bearer {api_key}"} if api_key else None,
        trust_env=url.host not in LOOPBACK,
        # The caller's concurrency is the only limit: a pool would add its queue to latencies.
        limits=httpx.Limits(max_connections=None, max_keepalive_connections=None),
        event_hooks={"request": [name]},
    )


def send(
    base_url: str,
    timeout: float,
    api_key: str,
    server: Server,
    method: str,
    path: str,
    body: Mapping[str, Any] | None = None,
) -> httpx.Response:
    """Send one request, once, over a connection of its own; return the reply, whatever it says.

    The parameters are those of `open_client`, but `timeout` bounds the whole reply. Raise
    LoraAssetsError where no reply comes.
    """

    async def ask() -> httpx.Response:
        async with open_client(base_url, timeout, api_key, server, timeout) as client:
            request = client.build_request(method, path, json=body)
            try:
                return await client.send(request)
            except httpx.RequestError as error:
                raise unreachable(request, error) from None

    return run_apart(ask())


async def models(client: httpx.AsyncClient) -> Sequence[str]:
    """Return the names of the models that a server serves; fails as `ask`."""
    return [model.id for model in (await ask(client, "/v1/models", None, _Models)).data]


async def build(client: httpx.AsyncClient) -> str:
    """Return the version that a server reports; "unknown" where it reports none.

    Raise LoraAssetsError where it can't be reached.
    """
    try:
        response = await client.get("/version")
    except httpx.RequestError as error:
        raise unreachable(error.request, error) from None
    try:
        return _Version.model_validate_json(response.content).version
    except ValidationError:
        return "unknown"


async def ask(
    client: httpx.AsyncClient, path: str, body: dict[str, JsonValue] | None, reply: type[Reply]
) -> Reply:
    """POST a JSON body (GET without one) and read the reply.

    It is asked again after RETRY_PAUSES where that may help. Raise LoraAssetsError when the
    server can't be reached, refuses, or sends something else than a `reply` of the model that the
    body names; a wrong reply is not asked for again, nor a host that does not exist.
    """
    request = client.build_request("GET" if body is None else "POST", path, json=body)
    for pause in (*RETRY_PAUSES, None):
        try:
            response = await client.send(request)
        except httpx.RequestError as error:
            failure = unreachable(request, error)
            if is_unknown_host(error):
                break
        else:
            if response.is_success:
                return read(response, reply, (body or {}).get("model"))
            failure = refused(response)
            if response.status_code != 429 and response.status_code < 500:
                break
        if pause is not None:
            await asyncio.sleep(pause)
    raise failure


def unreachable(request: httpx.Request, error: httpx.RequestError) -> LoraAssetsError:
    """Return the error for a request that got no reply, or only a part of one."""
    server, url = _server(request)
    if is_unknown_host(error):
        return LoraAssetsError(
            f"{server.name} at {url} is unreachable: there is no host {request.url.host}",
            f"Correct {server.url_setting}.",
        )
    return LoraAssetsError(
        f"{server.name} at {url} is unreachable ({_one_line(str(error)) or type(error).__name__})",
        "Check that it runs and is not overloaded (embedded: 'lora-assets serve'), or correct "
        f"{server.url_setting}.",
    )


def refused(response: httpx.Response) -> LoraAssetsError:
    """Return the error for a reply (already read) whose status is not 2xx."""
    server, url = _server(response.request)
    status = response.status_code
    if status in (401, 403):
        remedy = f"Set {server.key_setting} to the server's key."
    elif status == 404:
        remedy = f"Check that the model is served and that {server.url_setting} has no /v1."
    elif status == 429 or status >= 500:
        remedy = "Look into the server's log, then run again."
    else:
        remedy = "Check that the server takes such requests."
    message = server_message(response.request, response.text)
    return LoraAssetsError(
        f"{server.name} at {url} answered {_path(response.request)} with {status}: {message}",
        remedy,
    )


def server_message(request: httpx.Request, body: str) -> str:
    """Return what an error body says (OpenAI's, vLLM's or FastAPI's form): one line, keyless."""
    try:
        said = _ErrorBody.model_validate_json(body).message
    except ValidationError:
        said = None
    message = str(said or body)
    key = request.headers.get("Authorization", "").removeprefix("Bearer ")
    if key:
        message = message.replace(key, "[API key]")
    return _one_line(message) or "(no message)"


def read(response: httpx.Response, reply: type[Reply], model: JsonValue = None) -> Reply:
    """Return the reply's body as a `reply`; raise LoraAssetsError where it is something else.

    With a `model`, it must also say that it is from that one: by its name, or, as providers answer
    for an alias, by one that has its date or number, too (gpt-4o, gpt-4o-2024-08-06).
    """
    try:
        found = reply.model_validate_json(response.content)
        if model is None:
            return found
        by = _ModelReply.model_validate_json(response.content).model
    except ValidationError as error:
        server, url = _server(response.request)
        raise LoraAssetsError(
            f"{server.name} at {url} sent a reply to {_path(response.request)} that can't be "
            f"read: {_one_line(validation_line(error))}",
            f"Check that {server.url_setting} is the URL of an OpenAI-compatible server.",
        ) from None
    if by != model and not re.fullmatch(rf"{re.escape(str(model))}-\d[\d.-]*", by):
        server, url = _server(response.request)
        raise LoraAssetsError(
            f"{server.name} at {url}: {other_model(response.request, str(model), by)}",
            "Check what it serves under this name. Where it answers by another one, ask for that: "
            "--judge-model.",
        )
    return found


def other_model(request: httpx.Request, asked: str, answered: str | None) -> str:
    """Return in one line that a reply is from another model than the one asked for."""
    named = server_message(request, answered) if answered else "none by name"
    return f"the model {asked} was asked, and {named} answered"


_SAID = AliasChoices(AliasPath("error", "message"), "error", "message", "detail")


class _Model(BaseModel):
    id: str


class _Models(BaseModel):
    data: list[_Model]


class _ModelReply(BaseModel):
    model: str


class _Version(BaseModel):
    version: str


class _ErrorBody(BaseModel):
    message: JsonValue = Field(None, validation_alias=_SAID)


def _server(request: httpx.Request) -> tuple[Server, str]:
    """Return the server that a request is for, and its URL; vLLM's where nothing else is said."""
    vllm = VLLM, str(request.url.copy_with(raw_path=b"/")).rstrip("/")
    server: tuple[Server, str] = request.extensions.get(_SERVER, vllm)
    return server


def _path(request: httpx.Request) -> str:
    return request.url.path.removeprefix(httpx.URL(_server(request)[1]).path.rstrip("/"))


def is_unknown_host(error: BaseException | None) -> bool:
    """Return whether the resolver says that there is no such name, not that it is away."""
    while error is not None and not isinstance(error, socket.gaierror):
        error = error.__cause__ or error.__context__
    return error is not None and error.errno in (socket.EAI_NONAME, socket.EAI_NODATA)


def _one_line(text: str) -> str:
    # What a terminal would act upon (ANSI's sequences above all) is shown as a question mark.
    printed = "".join(each if each.isprintable() else "?" for each in " ".join(text.split()))
    line = printed.rstrip(".")
    return line if len(line) <= _LONGEST_MESSAGE else f"{line[:_LONGEST_MESSAGE]}…"
