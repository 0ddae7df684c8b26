"""SIGINT and SIGTERM: what they do for the length of a block."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from lora_assets.errors import Stopped

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


@contextmanager
def raising_stopped() -> Iterator[None]:
    """Raise Stopped in the block when SIGINT or SIGTERM comes, and ignore those after it.

    A SIGINT that was ignored before, as in the background of a script, is still ignored. It gets
    a handler in spite of that: Dagster gives SIGTERM the one that SIGINT has.
    """
    was_ignored = signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    stopped = False

    def stop(number: int, _: FrameType | None) -> None:
        nonlocal stopped
        if not stopped and (number != signal.SIGINT or not was_ignored):
            stopped = True
            raise Stopped(number)

    with handled_by(stop):
        yield
