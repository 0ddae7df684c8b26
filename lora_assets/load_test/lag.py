"""Whether the clients of a load test kept up, or measured themselves."""

import asyncio
import time
from types import TracebackType
from typing import Self

LATE = 0.05
"""Seconds by which the event loop may be late to its work."""

MOST_LATE = 0.05
"""Share of a test's time in which it may be later: the gate is on a 95th percentile."""

_BEAT = 0.01


def lateness(share: float) -> tuple[str, ...]:
    """Return why a test whose clients were late for that share of its time proves nothing."""
    if share <= MOST_LATE:
        return ()
    return (
        f"the clients of the load test were over {LATE * 1000:.0f} ms late for {share:.0%} of its "
        f"time (at most {MOST_LATE:.0%}), so it measured its own machine: give it more free cores",
    )


class Lag:
    """Watches the event loop for as long as the block."""

    def __init__(self) -> None:
        self._late = 0.0
        self._began = time.perf_counter()

    @property
    def share(self) -> float:
        """Return the share of the time, so far or of the block, in which the loop was late."""
        return self._late / max(self._ended - self._began, _BEAT)

    async def __aenter__(self) -> Self:
        self._began = self._ended = time.perf_counter()
        self._beats = asyncio.create_task(self._watch())
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._ended = time.perf_counter()
        self._beats.cancel()

    async def _watch(self) -> None:
        while True:
            due = time.perf_counter() + _BEAT
            await asyncio.sleep(_BEAT)
            lag = time.perf_counter() - due
            self._late += lag if lag > LATE else 0.0
