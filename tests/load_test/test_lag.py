import asyncio
import time

from lora_assets.load_test.lag import LATE, Lag, lateness


def test_clients_that_are_kept_from_their_work_are_late() -> None:
    async def busy() -> float:
        async with Lag() as lag:
            await asyncio.sleep(0)
            time.sleep(3 * LATE)
            await asyncio.sleep(LATE)
        return lag.p95

    lag = asyncio.run(busy())
    assert lag > LATE
    (fault,) = lateness(lag, 0.5)
    assert "measured their own machine" in fault


def test_clients_may_be_late_by_a_part_of_what_they_measure() -> None:
    assert lateness(LATE, 0.5) == lateness(0.29, 3.0) == ()
    assert lateness(0.31, 3.0) != ()
