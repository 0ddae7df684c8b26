import asyncio
import time

from lora_assets.load_test.lag import LATE, MOST_LATE, Lag, lateness


def test_clients_that_are_kept_from_their_work_are_late() -> None:
    async def busy() -> float:
        async with Lag() as lag:
            await asyncio.sleep(0)
            time.sleep(10 * LATE)
            await asyncio.sleep(LATE)
        return lag.share

    share = asyncio.run(busy())
    assert share > MOST_LATE
    (fault,) = lateness(share)
    assert "late for" in fault


def test_a_test_whose_clients_were_late_now_and_then_counts() -> None:
    assert lateness(0.0) == lateness(MOST_LATE) == ()
