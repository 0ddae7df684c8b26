"""A double of a model server: one endpoint that replies as the test says."""

import asyncio
from collections.abc import Callable
from typing import Any

from fastapi import FastAPI


def said(content: str | None, finish_reason: str = "stop", **others: str) -> dict[str, Any]:
    """Return a reply of the chat API, whose message has this content and these further keys."""
    message = {"role": "assistant", "content": content, **others}
    return {"choices": [{"message": message, "finish_reason": finish_reason}]}


class ModelServer:
    """Reply to each body of `path` by its name and how often that was asked; keep what was.

    A reply that names no model is from the one that was asked.
    """

    def __init__(
        self, path: str, name: Callable[[dict[str, Any]], str], reply: Callable[[str, int], Any]
    ) -> None:
        self.asked: list[str] = []
        self.bodies: list[dict[str, Any]] = []
        self.most_at_once = 0
        at_once = 0
        self.app = FastAPI()

        @self.app.post(path)
        async def complete(body: dict[str, Any]) -> Any:
            nonlocal at_once
            self.asked.append(name(body))
            self.bodies.append(body)
            tries = self.asked.count(self.asked[-1])
            at_once += 1
            self.most_at_once = max(self.most_at_once, at_once)
            await asyncio.sleep(0)
            at_once -= 1
            said = reply(name(body), tries)
            return {"model": body["model"], **said} if isinstance(said, dict) else said
