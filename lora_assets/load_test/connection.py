"""A connection that is kept, and read at the moment at which bytes come.

httpx takes several times as long for each event of a stream, and what one client computes is
time that the server gets the blame for by all others.
"""

import asyncio
import time

import httpx

from lora_assets.load_test.answer import StreamedAnswer
from lora_assets.load_test.response import Reader, Response
from lora_assets.serving.bounded_client import MOST_REPLY_BYTES

_LONGEST_END = 0.05
"""Seconds to wait for the end of a response whose text is complete; then it is cut off."""


class Connection(asyncio.Protocol):
    """One connection, for one request after another; `timeout` bounds each silence in seconds."""

    def __init__(self, timeout: float | None) -> None:
        self._timeout = timeout
        self._transport: asyncio.Transport | None = None
        self._reader: Reader[None] | None = None
        self._taker: StreamedAnswer | None = None
        self._said: asyncio.Future[None] | None = None
        self._ended: asyncio.Future[None] | None = None
        self._heard = 0.0
        self._size = 0
        self.response = Response()
        """The last response."""

    @property
    def usable(self) -> bool:
        """Return whether another request can be sent."""
        transport = self._transport
        return transport is not None and not transport.is_closing() and self._reader is None

    def send(self, request: bytes, taker: StreamedAnswer) -> "asyncio.Future[None]":
        """Send a request; return what is done when the response has ended or `taker` has settled.

        It fails with one of httpx's errors.
        """
        assert self._transport is not None
        loop = asyncio.get_running_loop()
        said = self._said = loop.create_future()
        self._ended = loop.create_future()
        self._taker, self.response = taker, Response()
        self._reader = self.response.read(taker.take)
        next(self._reader)
        self._heard, self._size = loop.time(), 0
        self._transport.write(request)
        if self._timeout is not None:
            loop.call_later(self._timeout, self._watch, said)
        return said

    async def finish(self) -> None:
        """Wait a moment for the end of a response that has said all."""
        if self._ended is not None:
            await asyncio.wait([self._ended], timeout=_LONGEST_END)
        if not self.usable or self.response.closes:
            self.close()

    def close(self) -> None:
        """Close the connection."""
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        now = time.perf_counter()
        self._heard = asyncio.get_running_loop().time()
        if self._reader is None:
            self.close()
            return
        self._size += len(data)
        if self._size > MOST_REPLY_BYTES:
            self._end(httpx.ReadError(f"the reply has more than {MOST_REPLY_BYTES >> 20} MiB"))
            self.close()
            return
        try:
            self._reader.send((now, data))
            if self._taker is not None and self._taker.settled:
                self._settle(None)
        except StopIteration:
            self._end(None)
        except (ValueError, IndexError) as error:
            self._end(httpx.RemoteProtocolError(f"the response can't be read: {error}"))
            self.close()

    def connection_lost(self, exc: Exception | None) -> None:
        if exc is not None:
            self._end(httpx.ReadError(str(exc)))
        elif self.response.ends_with_connection:
            self._end(None)
        else:
            self._end(httpx.RemoteProtocolError("peer closed connection within its response"))

    def _watch(self, said: "asyncio.Future[None]") -> None:
        if said.done() or self._timeout is None:
            return
        loop = asyncio.get_running_loop()
        left = self._heard + self._timeout - loop.time()
        if left > 0:
            loop.call_later(left, self._watch, said)
        else:
            self._end(httpx.ReadTimeout(f"nothing came for {self._timeout:g} s"))
            self.close()

    def _settle(self, error: httpx.RequestError | None) -> None:
        said, self._said = self._said, None
        if said is None or said.done():
            return
        if error is None:
            said.set_result(None)
        else:
            said.set_exception(error)

    def _end(self, error: httpx.RequestError | None) -> None:
        self._settle(error)
        ended, self._ended = self._ended, None
        self._reader = self._taker = None
        if ended is not None and not ended.done():
            ended.set_result(None)
