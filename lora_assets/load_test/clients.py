"""Requests of a load test, each timed from the moment it is sent."""

import asyncio
import json
import time
from collections.abc import Callable, Sequence
from typing import Self
from urllib.request import getproxies, proxy_bypass

import httpx

from lora_assets.errors import LoraAssetsError
from lora_assets.load_test.answer import MOST_EVENT_BYTES, StreamedAnswer
from lora_assets.load_test.connection import Connection
from lora_assets.load_test.lag import Lag
from lora_assets.records.load import RequestSample
from lora_assets.serving import http_client
from lora_assets.serving.bounded_client import BoundedClient, tls
from lora_assets.serving.workers import work_through

Ended = Callable[[RequestSample], None]
"""Gets the sample of each request."""

_PATH = "/v1/completions"
_CLOSED_WHILE_IDLE = 0.2
"""A connection that a server closed while it was idle is lost within so many seconds of the next
request; what is lost later had been taken."""


class Clients:
    """Sends requests as `client` would (server, key, time limits), over connections that it keeps.

    It begins with `connections` open ones, which then cost no request any time, and has as many
    requests under way at once.
    """

    def __init__(self, client: BoundedClient, max_tokens: int, connections: int) -> None:
        self._client = client
        self._connections = connections
        self._max_tokens = max_tokens
        self._idle: list[Connection] = []
        self._lag = Lag()

    @property
    def lag(self) -> float:
        """Return by how many seconds the clients were late (P95 over their time)."""
        return self._lag.p95

    async def __aenter__(self) -> Self:
        self._request = self._client.build_request("POST", _PATH, content=b"")
        for name in self._client.event_hooks["request"]:
            await name(self._request)
        self._refuse_proxy()
        headers = {
            name: value
            for name, value in self._request.headers.items()
            if name not in ("connection", "content-length", "content-type")
        }
        url = self._request.url
        self._head = "\r\n".join(
            [
                f"POST {url.raw_path.decode()} HTTP/1.1",
                *(f"{name}: {value}" for name, value in headers.items()),
                "Content-Type: application/json",
                "Content-Length: ",
            ]
        ).encode()
        self._secure = tls() if url.scheme == "https" else None
        opening = (self._connect() for _ in range(self._connections))
        # What fails here fails again with the request that wants it, and is told there.
        opened = await asyncio.gather(*opening, return_exceptions=True)
        self._idle = [each for each in opened if isinstance(each, Connection)]
        await self._lag.__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._lag.__aexit__()
        for connection in self._idle:
            connection.close()

    async def send(self, model: str, prompts: Sequence[str], began: float, ended: Ended) -> None:
        """Send each prompt once, all clients at work; `ended` gets each request's sample."""

        async def request(prompt: str) -> None:
            ended(await self.request(model, prompt, began))

        await work_through(prompts, self._connections, request)

    async def request(self, model: str, prompt: str, began: float) -> RequestSample:
        """Send one request and time it, from the moment it is sent to `[DONE]`.

        To connect is not part of it: clients keep their connections. `began` is when the test
        did (`time.perf_counter`). A request that fails is a sample, too.
        """
        body = {
            "model": model,
            "prompt": prompt,
            "max_tokens": self._max_tokens,
            "temperature": 0,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        encoded = json.dumps(body).encode()
        message = b"%s%d\r\n\r\n%s" % (self._head, len(encoded), encoded)
        sent, answer, failure = time.perf_counter(), _Answer(self._request, model), None
        try:
            async with asyncio.timeout(self._client.deadline):
                sent, answer = await self._exchange(message, model)
            failure = answer.failure
        except TimeoutError:
            late = httpx.ReadTimeout(f"no whole reply within {self._client.deadline:g} s")
            failure = http_client.unreachable(self._request, late).cause
        except httpx.RequestError as error:
            failure = http_client.unreachable(self._request, error).cause
        times = (answer.done, answer.first) if failure is None else (None, None)
        latency, ttft = (None if moment is None else moment - sent for moment in times)
        return RequestSample(
            started=sent - began,
            latency=latency,
            ttft=ttft,
            output_tokens=answer.tokens,
            error=failure,
        )

    async def _exchange(self, message: bytes, model: str) -> tuple[float, "_Answer"]:
        """Return when the message was sent first, and the answer to it."""
        sent = 0.0
        while True:
            while self._idle and not self._idle[-1].usable:
                self._idle.pop()
            is_kept = bool(self._idle)
            answer = _Answer(self._request, model)
            connection = self._idle.pop() if is_kept else await self._connect()
            answer.connection = connection
            sent = sent or time.perf_counter()
            try:
                await connection.send(message, answer)
                answer.end()
                await connection.finish()
            except httpx.RequestError as error:
                # Servers close connections that were idle, which is no failure.
                at_once = time.perf_counter() - sent < _CLOSED_WHILE_IDLE
                is_lost = not isinstance(error, httpx.TimeoutException) and not connection.status
                if is_kept and is_lost and at_once:
                    continue
                raise
            except asyncio.CancelledError:
                connection.close()
                raise
            if connection.usable:
                self._idle.append(connection)
            return sent, answer

    async def _connect(self) -> Connection:
        url, timeout = self._request.url, self._client.timeout
        port = url.port or (443 if url.scheme == "https" else 80)
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(timeout.connect):
                _, connection = await loop.create_connection(
                    lambda: Connection(timeout.read), url.host, port, ssl=self._secure
                )
        except TimeoutError:
            raise httpx.ConnectTimeout(f"no connection in {timeout.connect:g} s") from None
        except OSError as error:
            raise httpx.ConnectError(str(error)) from error
        return connection

    def _refuse_proxy(self) -> None:
        url = self._request.url
        if not self._client.trust_env or proxy_bypass(url.host):
            return
        proxies = getproxies()
        if proxies.get(url.scheme) or proxies.get("all"):
            raise LoraAssetsError(
                f"The load test would measure the proxy before {url.host}",
                f"Add {url.host} to NO_PROXY.",
            )


class _Answer(StreamedAnswer):
    """An answer, or what was said instead of one."""

    connection: Connection | None = None
    _refusal: bytes = b""

    @property
    def _status(self) -> int:
        return self.connection.status if self.connection else 0

    @property
    def failure(self) -> str | None:
        if 200 <= self._status < 300:
            return super().failure
        response = httpx.Response(self._status, content=self._refusal, request=self.request)
        return http_client.refused(response).cause

    def take(self, now: float, piece: bytes) -> None:
        if 200 <= self._status < 300:
            super().take(now, piece)
        else:
            self._refusal = (self._refusal + piece)[:MOST_EVENT_BYTES]
