"""An HTTP/1.1 response, read from what comes with the moment at which it came."""

from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import TypeVar

Piece = Callable[[float, bytes], None]
"""What is called with a part of a body, and when it came (`time.perf_counter`)."""

MOST_PART_BYTES = 1 << 20
"""Of a head, of one chunk or a body with a length, of one event's line, and of a refusal."""

Part = TypeVar("Part")
Reader = Generator[None, tuple[float, bytes], Part]
"""What is sent each read of the connection, and returns when it has read its part."""


@dataclass
class Response:
    """One response; `status` is 0 until its head has come.

    Its end may be told by that of the connection alone. Then `ends_with_connection`, and the
    reader never returns.
    """

    status: int = 0
    ends_with_connection: bool = False
    closes: bool = False
    _rest: bytes = b""
    _now: float = 0.0

    def read(self, piece: Piece) -> Reader[None]:
        """Read the whole response; `piece` gets its body. Raise ValueError where it is none."""
        first, *lines = (yield from self._until(b"\r\n\r\n")).split(b"\r\n")
        pairs = (line.partition(b":") for line in lines)
        headers = {name.strip().lower(): value.strip() for name, _, value in pairs}
        self.status = int(first.split(b" ", 2)[1])
        self.closes = headers.get(b"connection", b"").lower() == b"close"
        if (encoding := headers.get(b"content-encoding", b"identity").lower()) != b"identity":
            raise ValueError(f"its encoding is {encoding.decode(errors='replace')}")
        if headers.get(b"transfer-encoding", b"").lower() == b"chunked":
            yield from self._chunks(piece)
        elif b"content-length" in headers or self.status == 204:
            piece(self._now, (yield from self._exactly(int(headers.get(b"content-length", b"0")))))
        else:
            self.ends_with_connection = True
            while True:
                piece(self._now, self._rest)
                self._now, self._rest = yield

    def _chunks(self, piece: Piece) -> Reader[None]:
        while size := int((yield from self._until(b"\r\n")).partition(b";")[0], 16):
            piece(self._now, (yield from self._exactly(size)))
            yield from self._exactly(2)
        while (yield from self._until(b"\r\n")):  # trailers
            pass

    def _until(self, mark: bytes) -> Reader[bytes]:
        while (end := self._rest.find(mark)) < 0:
            yield from self._more()
        return (yield from self._exactly(end + len(mark)))[:end]

    def _exactly(self, size: int) -> Reader[bytes]:
        while len(self._rest) < size:
            yield from self._more()
        found, self._rest = self._rest[:size], self._rest[size:]
        return found

    def _more(self) -> Reader[None]:
        self._now, more = yield
        if len(self._rest) > MOST_PART_BYTES:
            raise ValueError(f"a part of it has more than {MOST_PART_BYTES >> 20} MiB")
        self._rest += more
