"""What a neighbour's reply may take, and calls of libraries that bound each read alone.

A server that sends one byte now and then would hold a step for ever.
"""

import time
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from threading import Thread
from typing import TypeVar

from lora_assets.errors import LoraAssetsError

MOST_REPLY_BYTES = 64 << 20
"""What a reply that is kept in memory may have."""

CALL_S = 150
"""What a call may take as a whole, the library's own attempts included."""

SLOWEST_BYTES_PER_S = 100_000
"""A call that moves files may take a second more for each of these that have arrived, or are to be
sent: a slow network is waited for as long as it goes on."""

_Result = TypeVar("_Result")


def require_at_most(what: str, size: int, most: int, remedy: str) -> None:
    """Raise LoraAssetsError for what has more bytes than `most`, before it is read."""
    if size > most:
        raise LoraAssetsError(
            f"{what} has {size >> 20:,} MiB, more than the {most >> 20:,} that it may have", remedy
        )


def within(
    call: Callable[[], _Result], moved: Callable[[], int] = int, began: float | None = None
) -> _Result:
    """Return what `call` returns; raise TimeoutError once it is late.

    `moved` says how many bytes it has moved so far, and `began` when (in seconds of
    time.monotonic()) where this is a part of it. What is late is left to itself, in a thread that
    no process waits for at its end.
    """
    done: Future[_Result] = Future()

    def run() -> None:
        try:
            done.set_result(call())
        except BaseException as error:  # noqa: BLE001 (raised where it was called)
            done.set_exception(error)

    began = time.monotonic() if began is None else began
    Thread(target=run, daemon=True).start()
    while (left := began + CALL_S + moved() / SLOWEST_BYTES_PER_S - time.monotonic()) > 0:
        with suppress(TimeoutError):
            done.exception(left)
        if done.done():
            return done.result()
    raise TimeoutError(f"no whole reply within {time.monotonic() - began:.0f} s")
