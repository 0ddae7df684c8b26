"""An HTTP client of an application in this process."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

import httpx
from fastapi import FastAPI

Result = TypeVar("Result")


def with_client(app: FastAPI, do: Callable[[httpx.AsyncClient], Awaitable[Result]]) -> Result:
    """Return what `do` returns, given a client of `app`."""

    async def run() -> Result:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://server") as client:
            return await do(client)

    return asyncio.run(run())
