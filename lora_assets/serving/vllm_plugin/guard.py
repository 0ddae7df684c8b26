"""Who may ask a model server for what: an ASGI middleware before everything else in it.

vLLM's own key covers `/v1` alone; its other routes (`/adapters`, `/invocations`, `/tokenize`,
`/sleep`, …) answer without one, and some load adapters. Here a route that is not known to be
for clients takes the admin key, so that a route of a later vLLM is closed until it is known. It
runs inside vLLM, so it needs nothing but the standard library.
"""

import hashlib
import hmac
import json
import os
import sys
from collections.abc import Awaitable, Callable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Scope = MutableMapping[str, Any]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

ADMIN_KEY = "LORA_ASSETS_ADMIN_KEY"
"""The variable of the key that changes what a server serves."""

LOADS = "/v1/load_lora_adapter"
SAGEMAKER_LOADS = "/adapters"
"""vLLM's other route for loads: with an admin key it is closed, since it takes any path."""

OPEN = ("/health", "/metrics", "/metrics/")
"""Answered without a key to GET: probes and Prometheus have none."""

OF_CLIENTS = (
    *("/v1/models", "/v1/completions", "/v1/chat/completions", "/v1/responses", "/v1/messages"),
    *("/v1/embeddings", "/v1/score", "/v1/rerank", "/v1/audio/transcriptions"),
    *("/tokenize", "/detokenize", "/version", "/ping"),
)
"""Routes that change nothing that is served, and those below them."""

MOST_BODY_BYTES = 32 << 20
"""The largest body that is read; a prompt of 8,192 tokens has about 40 kB."""


@dataclass(frozen=True)
class Keys:
    """`api` are the keys of clients, `admin` that of who loads adapters; none guards nothing.

    Without an admin key a client's key does for both.
    """

    api: Sequence[str] = field(repr=False)
    admin: str = field(repr=False)

    @property
    def of_admins(self) -> Sequence[str]:
        """Those that may do everything; empty where everyone may."""
        return [self.admin] if self.admin else self.api

    @property
    def of_clients(self) -> Sequence[str]:
        """Those that may ask for answers; empty where everyone may."""
        return [*self.api, *self.of_admins] if self.api else ()


def given_keys(environ: Mapping[str, str], arguments: Sequence[str]) -> Keys:
    """The keys that vLLM was started with: those of `--api-key`, or else $VLLM_API_KEY."""
    named: list[str] = []
    for at, argument in enumerate(arguments):
        option, equals, value = argument.partition("=")
        if option in ("--api-key", "--api_key"):
            rest = [value] if equals else arguments[at + 1 :]
            named += rest[: next((n for n, v in enumerate(rest) if v.startswith("--")), len(rest))]
    keys = named or [environ.get("VLLM_API_KEY", "")]
    return Keys([key for key in keys if key], environ.get(ADMIN_KEY, ""))


class TooLarge(Exception):
    """A body has more than MOST_BODY_BYTES."""


class Guard:
    """Asks for the key before a byte of the body is read, and bounds the body.

    `below` are more prefixes of clients' routes, of what is mounted beside the server.
    """

    def __init__(self, app: App, keys: Keys | None = None, below: Sequence[str] = ()) -> None:
        self._app = app
        self._keys = keys or given_keys(os.environ, sys.argv)
        self._below = tuple(below)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """An ASGI application."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        headers = {n.lower(): v for n, v in reversed(scope["headers"])}  # The first one counts.
        refusal = self._refusal(scope, headers)
        if refusal is None and int(headers.get(b"content-length", b"0")) > MOST_BODY_BYTES:
            refusal = _TOO_LARGE
        if refusal is not None:
            await refuse(scope, send, *refusal)
            return
        started = False

        async def start(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            await self._app(self._as_client(scope, headers), _bounded(receive), start)
        except TooLarge:
            if started:
                raise
            await refuse(scope, send, *_TOO_LARGE)

    def _refusal(self, scope: Scope, headers: Mapping[bytes, bytes]) -> tuple[int, str] | None:
        """Why it is not answered, as status and text; None where it is."""
        path, method = _route(scope), scope.get("method", "")
        if method == "OPTIONS" or (method == "GET" and path in OPEN):
            return None
        below = (*self._below, *(f"{route}/" for route in OF_CLIENTS))
        of_clients = path in OF_CLIENTS or path.startswith(below)
        wanted = self._keys.of_clients if of_clients else self._keys.of_admins
        if not wanted or _is_one(headers, wanted):
            is_open = not self._keys.admin or path.rstrip("/") != SAGEMAKER_LOADS
            return None if is_open else (403, f"An adapter is loaded by {LOADS}")
        if _is_one(headers, self._keys.api):
            return 403, f"This takes the admin key ({ADMIN_KEY})"
        return 401, "Unauthorized"

    def _as_client(self, scope: Scope, headers: Mapping[bytes, bytes]) -> Scope:
        """The request as the server's own authentication takes it, which has no admin key."""
        keys = self._keys
        if not keys.api or not keys.admin or not _is_one(headers, [keys.admin]):
            return scope
        others = [(n, v) for n, v in scope["headers"] if n.lower() != b"authorization"]
        key = (b"authorization", f"Bearer {keys.api[0]}".encode())
        return {**scope, "headers": [*others, key]}


_TOO_LARGE = 413, f"A body may have {MOST_BODY_BYTES >> 20} MiB"


def _route(scope: Scope) -> str:
    """The path that the server's router goes by."""
    path, root = str(scope["path"]), str(scope.get("root_path", ""))
    return path[len(root) :] if root and path.startswith(f"{root}/") else path


def _is_one(headers: Mapping[bytes, bytes], wanted: Sequence[str]) -> bool:
    scheme, _, key = headers.get(b"authorization", b"").partition(b" ")
    given = hashlib.sha256(key).digest()
    # All are compared, so that the time says nothing.
    same = [hmac.compare_digest(given, hashlib.sha256(e.encode()).digest()) for e in wanted]
    return scheme.lower() == b"bearer" and any(same)


def _bounded(receive: Receive) -> Receive:
    length = 0

    async def count() -> Message:
        nonlocal length
        message = await receive()
        length += len(message.get("body", b""))
        if length > MOST_BODY_BYTES:
            raise TooLarge
        return message

    return count


async def refuse(scope: Scope, send: Send, status: int, text: str) -> None:
    """Answer with `status` and the reason; nothing more of the body is read."""
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": 1008, "reason": text})
        return
    body = json.dumps({"error": text}).encode()
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        (b"connection", b"close"),  # What is left of the body is not read.
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
