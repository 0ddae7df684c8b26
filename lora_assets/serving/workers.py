"""A fixed number of workers that share one list of things to do."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import TypeVar

from lora_assets.errors import LoraAssetsError

Item = TypeVar("Item")


async def work_through(
    items: Iterable[Item], workers: int, do: Callable[[Item], Awaitable[None]]
) -> None:
    """Do every item, `workers` at a time, each worker taking the next as it gets free.

    The first failure cancels the rest and is raised as itself, not in an exception group.
    Raise LoraAssetsError for fewer than one worker.
    """
    if workers < 1:
        raise LoraAssetsError(
            f"{workers} requests at a time were asked for", "Ask for at least one."
        )
    remaining = iter(items)

    async def work() -> None:
        for item in remaining:
            await do(item)

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(workers):
                group.create_task(work())
    except ExceptionGroup as failures:
        raise failures.exceptions[0] from None
