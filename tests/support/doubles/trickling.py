"""A server whose reply never ends."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import chain, repeat
from socketserver import StreamRequestHandler, ThreadingTCPServer
from threading import Event, Thread

HEADERS = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 999999\r\n"


@contextmanager
def trickling(head: bytes) -> Iterator[str]:
    """A server that sends `head` and then a byte for as long as its client listens."""
    over = Event()

    class Handler(StreamRequestHandler):
        def handle(self) -> None:
            with suppress(ConnectionError):
                while self.rfile.readline().strip():
                    pass
                for part in chain([head], repeat(b"x")):
                    self.wfile.write(part)
                    if over.wait(0.005):
                        break

    with ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            over.set()
            server.shutdown()
