"""A streamed answer: server-sent events, and what they add up to."""

import re
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import httpx
from pydantic import BaseModel, JsonValue, ValidationError

from lora_assets.serving import http_client

MOST_EVENT_BYTES = 1 << 20
"""Of one line of an event, of a refusal, and of a response's head."""

_LINE_END = re.compile(rb"\r\n|\n|\r")
"""As the standard has it. Not str.splitlines, which also splits at U+2028 and its like."""


class _StreamedChoice(BaseModel):
    text: str = ""
    finish_reason: str | None = None


class _Usage(BaseModel):
    completion_tokens: int


class _Chunk(BaseModel):
    model: str | None = None
    choices: list[_StreamedChoice]
    error: JsonValue = None
    usage: _Usage | None = None


@dataclass
class Events:
    """Server-sent events (WHATWG HTML, 9.2), taken from a stream in pieces."""

    _rest: bytes = b""
    _data: list[bytes] = field(default_factory=list)
    _after_return: bool = False
    _began: bool = False

    def take(self, piece: bytes) -> Iterator[bytes]:
        """Yield the data of each event that ends in `piece`; refuse a line that never does."""
        if not piece:
            return
        if not self._began:
            # One mark of the byte order at the stream's start is no part of it.
            self._began, piece = True, piece.removeprefix(b"\xef\xbb\xbf")
        if self._after_return:
            piece = piece.removeprefix(b"\n")
        *lines, rest = _LINE_END.split(self._rest + piece)
        self._after_return = not rest and piece.endswith(b"\r")
        self._rest = rest
        if len(rest) > MOST_EVENT_BYTES:
            raise ValueError(f"an event has more than {MOST_EVENT_BYTES >> 20} MiB")
        for line in lines:
            if line.startswith(b"data:"):
                self._data.append(line[5:].removeprefix(b" "))
            elif not line:
                yield from self._event()

    def end(self) -> Iterator[bytes]:
        """Yield the data of an event that the stream's end cut off; only [DONE] can be whole."""
        yield from self.take(b"\n\n")

    def _event(self) -> Iterator[bytes]:
        data, self._data = b"\n".join(self._data), []
        if data:
            yield data


@dataclass
class StreamedAnswer:
    """One answer as it comes, of which the first chunk must name the `model`.

    Moments are those of `time.perf_counter`. `first` is that of the first text, since an
    event may be empty. `done` is that of [DONE].
    """

    request: httpx.Request
    model: str
    first: float | None = None
    done: float | None = None
    tokens: int = 0
    _counted: bool = False
    _named: bool = False
    _broken: str | None = None
    _finish_reason: str | None = None
    _events: Events = field(default_factory=Events)

    @property
    def settled(self) -> bool:
        return self.done is not None or self._broken is not None

    def take(self, now: float, piece: bytes) -> None:
        for event in self._events.take(piece):
            self._take_event(now, event)

    def end(self) -> None:
        """Take the end of the stream."""
        for event in self._events.end():
            self._take_event(time.perf_counter(), event)

    @property
    def failure(self) -> str | None:
        """Return why this is no whole answer; None where it is one."""
        if self._broken is not None:
            return self._broken
        if self.done is None:
            return "the stream ended without [DONE]"
        if self._finish_reason not in ("stop", "length"):
            return f"the stream's finish_reason is {self._finish_reason}"
        if not self._counted:
            return "the stream has no usage, so its tokens can't be counted"
        if self.first is None or self.tokens < 1:
            return f"the answer has no text ({self.tokens} tokens)"
        return None

    def _take_event(self, now: float, event: bytes) -> None:
        if self.settled:
            return
        if event.strip() == b"[DONE]":
            self.done = now
            return
        try:
            chunk = _Chunk.model_validate_json(event)
        except ValidationError:
            chunk = None
        if chunk is None or chunk.error:
            message = http_client.server_message(self.request, event.decode(errors="replace"))
            self._broken = f"the stream broke off with: {message}"
            return
        if not self._named:
            self._named = True
            if chunk.model != self.model:
                self._broken = http_client.other_model(self.request, self.model, chunk.model)
                return
        for choice in chunk.choices:
            if choice.text and self.first is None:
                self.first = now
            self._finish_reason = choice.finish_reason or self._finish_reason
        if chunk.usage is not None:
            self.tokens, self._counted = chunk.usage.completion_tokens, True
