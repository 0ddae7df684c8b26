"""What is to be done is done by somebody."""

import asyncio

import pytest

from lora_assets.errors import LoraAssetsError
from lora_assets.serving.workers import work_through


def test_without_a_worker_nothing_counts_as_done() -> None:
    done: list[int] = []

    async def do(item: int) -> None:
        done.append(item)

    with pytest.raises(LoraAssetsError, match=r"^0 requests at a time were asked for\."):
        asyncio.run(work_through([1, 2], 0, do))
    asyncio.run(work_through([1, 2], 1, do))
    assert done == [1, 2]
