"""Whether the clients of a load test kept up, or measured themselves."""

import asyncio
import time
from typing import Self

LATE, LATE_SHARE = 0.1, 0.1
"""Seconds by which the event loop may be late to its work, and share of TTFT's P95; the larger."""

_BEAT = 0.01


def lateness(lag: float, ttft: float) -> tuple[str, ...]:
    """Return why a test whose clients were that late proves nothing; both are P95s in seconds."""
    limit = max(LATE, LATE_SHARE * ttft)
    if lag <= limit:
        return ()
    return (
        f"the load test's own clients were {lag:.2f} s late (P95, at most {limit:.2f} s), so they "
        "measured their own machine: give it more free cores",
    )


class Lag:
    """Watches the event loop for as long as the block."""

    def __init__(self) -> None:
        self._lags: list[float] = []

    @property
    def p95(self) -> float:
        """Return by how many seconds the loop was late at most, in 95 % of the time."""
        lags = sorted(self._lags, reverse=True)
        left = 0.05 * sum(lag + _BEAT for lag in lags)
        for lag in lags:
            left -= lag + _BEAT
            if left < 0:
                return lag
        return 0.0

    async def __aenter__(self) -> Self:
        self._beats = asyncio.create_task(self._watch())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._beats.cancel()

    async def _watch(self) -> None:
        while True:
            due = time.perf_counter() + _BEAT
            await asyncio.sleep(_BEAT)
            self._lags.append(time.perf_counter() - due)
