"""A connection that is kept, and read at the moment at which bytes come.

httpx takes several times as long for each event of a stream, and what one client computes is
time that the server gets the blame for by all others.
"""

import asyncio
import time

import httptools
import httpx

from lora_assets.bounded_calls import MOST_REPLY_BYTES
from lora_assets.load_test.answer import MOST_EVENT_BYTES, StreamedAnswer

_LONGEST_END = 0.05
"""Seconds to wait for the end of a response whose text is complete; then it is cut off."""


class Connection(asyncio.Protocol):
    """One connection, for one request after another; `timeout` bounds each silence in seconds.

    It is also the target of its parser, which calls the methods named on_….
    """

    def __init__(self, timeout: float | None) -> None:
        self._timeout = timeout
        self._transport: asyncio.Transport | None = None
        self._parser: httptools.HttpResponseParser | None = None
        self._taker: StreamedAnswer | None = None
        self._said: asyncio.Future[None] | None = None
        self._ended: asyncio.Future[None] | None = None
        self._now = self._heard = 0.0
        self._size = 0
        self.status = 0
        """Of the last response; 0 until its head has come."""

    @property
    def usable(self) -> bool:
        """Return whether another request can be sent."""
        transport = self._transport
        return transport is not None and not transport.is_closing() and self._parser is None

    def send(self, request: bytes, taker: StreamedAnswer) -> "asyncio.Future[None]":
        """Send a request; return what is done when the response has ended or `taker` has settled.

        It fails with one of httpx's errors.
        """
        assert self._transport is not None
        loop = asyncio.get_running_loop()
        said = self._said = loop.create_future()
        self._ended = loop.create_future()
        self._taker, self._parser = taker, httptools.HttpResponseParser(self)
        self._heard, self._size, self.status = loop.time(), 0, 0
        self._transport.write(request)
        if self._timeout is not None:
            loop.call_later(self._timeout, self._watch, said)
        return said

    async def finish(self) -> None:
        """Wait a moment for the end of a response that has said all."""
        if self._ended is not None:
            await asyncio.wait([self._ended], timeout=_LONGEST_END)
        if not self.usable:
            self.close()

    def close(self) -> None:
        """Close the connection."""
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._now = time.perf_counter()
        self._heard = asyncio.get_running_loop().time()
        self._size += len(data)
        if self._parser is None:
            self.close()
        elif self._size > (most := MOST_REPLY_BYTES if self.status else MOST_EVENT_BYTES):
            what = "reply" if self.status else "head of the reply"
            self._fail(httpx.ReadError(f"the {what} has more than {most >> 20} MiB"))
        else:
            try:
                self._parser.feed_data(data)
            except httptools.HttpParserError as error:
                cause = error.__context__ or error
                self._fail(httpx.RemoteProtocolError(f"the response can't be read: {cause}"))

    def on_header(self, name: bytes, value: bytes) -> None:
        if name.lower() == b"content-encoding" and value.lower() != b"identity":
            raise ValueError(f"its encoding is {value.decode(errors='replace')}")

    def on_headers_complete(self) -> None:
        assert self._parser is not None
        self.status = self._parser.get_status_code()

    def on_body(self, body: bytes) -> None:
        if self._taker is not None:
            self._taker.take(self._now, body)
            if self._taker.settled:
                self._settle(None)

    def on_message_complete(self) -> None:
        assert self._parser is not None
        keeps = self._parser.should_keep_alive()
        self._end(None)
        if not keeps:
            self.close()

    def connection_lost(self, exc: Exception | None) -> None:
        if exc is not None:
            self._end(httpx.ReadError(str(exc)))
        elif self.status and self._parser is not None and not self._parser.should_keep_alive():
            # Of a body without a length this is the end; one that was cut off lacks its [DONE].
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
            self._fail(httpx.ReadTimeout(f"nothing came for {self._timeout:g} s"))

    def _settle(self, error: httpx.RequestError | None) -> None:
        said, self._said = self._said, None
        if said is None or said.done():
            return
        if error is None:
            said.set_result(None)
        else:
            said.set_exception(error)

    def _fail(self, error: httpx.RequestError) -> None:
        self._end(error)
        self.close()

    def _end(self, error: httpx.RequestError | None) -> None:
        self._settle(error)
        ended, self._ended = self._ended, None
        self._parser = self._taker = None
        if ended is not None and not ended.done():
            ended.set_result(None)
