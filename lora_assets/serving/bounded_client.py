"""An HTTP client whose requests end: each reply has a deadline as a whole, and a size.

httpx's timeouts hold for each read alone: a server that sends one byte now and then would hold
a request for ever.
"""

import asyncio
import ssl
from collections.abc import AsyncIterator, Coroutine
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from typing import Any, TypeVar

import httpx

from lora_assets.bounded_calls import MOST_REPLY_BYTES
from lora_assets.errors import LoraAssetsError

WHOLE_REPLY = 5
"""How many times the timeout of a read a whole reply may take: one that streams takes longer."""

LOOPBACK = ("localhost", "127.0.0.1", "::1")
"""This machine, to which no proxy of the environment leads."""

_Result = TypeVar("_Result")


@cache
def tls() -> ssl.SSLContext:
    """Return the context of all clients: reading the certificates takes longer than a request."""
    return httpx.create_ssl_context()


class BoundedClient(httpx.AsyncClient):
    """Gives a request up after `deadline` seconds, its reply included, with httpx.ReadTimeout.

    A reply that is compressed or has more than MOST_REPLY_BYTES raises httpx.ReadError.
    Redirects are not followed, so that the key goes to one server alone.
    """

    def __init__(self, deadline: float, **options: Any) -> None:
        try:
            super().__init__(**options, verify=tls(), follow_redirects=False)
        except (ImportError, ValueError, httpx.InvalidURL) as error:
            raise LoraAssetsError(
                f"The environment's proxy can't be used ({error})",
                "Correct HTTP_PROXY, HTTPS_PROXY or ALL_PROXY, or name this host in NO_PROXY.",
            ) from None
        # Compressed, a reply of any size fits into few bytes.
        self.headers["Accept-Encoding"] = "identity"
        self.deadline = deadline

    async def send(
        self, request: httpx.Request, *, stream: bool = False, **options: Any
    ) -> httpx.Response:
        """Send a request as httpx does, within these bounds."""
        until = asyncio.get_running_loop().time() + self.deadline
        late = httpx.ReadTimeout(f"no whole reply within {self.deadline:g} s", request=request)
        try:
            async with asyncio.timeout_at(until):
                response = await super().send(request, stream=True, **options)
        except TimeoutError:
            raise late from None
        assert isinstance(response.stream, httpx.AsyncByteStream)
        encoding = response.headers.get("content-encoding", "identity")
        response.stream = _Bounded(encoding, response.stream, until, late)
        if not stream:
            try:
                await response.aread()
            finally:
                await response.aclose()
        return response


@dataclass
class _Bounded(httpx.AsyncByteStream):
    encoding: str
    stream: httpx.AsyncByteStream
    until: float
    late: httpx.ReadTimeout

    async def __aiter__(self) -> AsyncIterator[bytes]:
        if self.encoding != "identity":
            raise httpx.ReadError(f"the reply is compressed ({self.encoding})")
        parts, length = aiter(self.stream), 0
        while True:
            try:
                async with asyncio.timeout_at(self.until):
                    part = await anext(parts, None)
            except TimeoutError:
                raise self.late from None
            if part is None:
                return
            length += len(part)
            if length > MOST_REPLY_BYTES:
                raise httpx.ReadError(f"the reply has more than {MOST_REPLY_BYTES >> 20} MiB")
            yield part

    async def aclose(self) -> None:
        await self.stream.aclose()


def run_apart(work: Coroutine[Any, Any, _Result]) -> _Result:
    """Return what `work` returns, run in a loop of its own; the caller may be in another one."""
    pool = ThreadPoolExecutor(1)
    running = pool.submit(asyncio.run, work)
    # An interrupted command does not wait for it.
    pool.shutdown(wait=False)
    return running.result()


def request(method: str, url: str, deadline: float, **options: Any) -> httpx.Response:
    """Return the reply to one request of httpx's, all of it within `deadline` seconds.

    Proxies of the environment are used, except for this machine itself.
    """
    asked = httpx.URL(url)
    if (asked.port or 0) > 65535:
        raise httpx.InvalidURL(f"there is no port {asked.port}")
    is_elsewhere = asked.host not in LOOPBACK

    async def ask() -> httpx.Response:
        async with BoundedClient(deadline, timeout=deadline, trust_env=is_elsewhere) as client:
            return await client.request(method, url, **options)

    return run_apart(ask())
