"""SIGINT and SIGTERM: what they do for the length of a block."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

Handler = Callable[[int, FrameType | None], object] | signal.Handlers
SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def handled_by(handler: Handler) -> Iterator[None]:
    """Have `handler` get both signals in the block, and afterwards what got each before."""
    handlers = {number: signal.signal(number, handler) for number in SIGNALS}
    try:
        yield
    finally:
        for number, before in handlers.items():
            signal.signal(number, before)
