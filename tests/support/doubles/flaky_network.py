"""A double of the network between a command and Dagster's webserver: it can fail on purpose."""

import asyncio
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import Event

from aiohttp import ClientSession, web

from tests.support.doubles.background import serving_app


@dataclass
class FlakyNetwork:
    """Passes requests on to `target`; what it does may be changed while it works.

    `lose_replies` launches are carried out, and their reply is lost. `together` launches are held
    until that many have arrived. `arrived` is set with each operation `holds`, which waits for
    `go_on`.
    """

    target: str
    down: bool = False
    lose_replies: int = 0
    together: int = 0
    holds: str = "launchRun"
    go_on: Event = field(default_factory=Event)
    arrived: Event = field(default_factory=Event)
    launches: int = 0

    @contextmanager
    def serving(self) -> Iterator[str]:
        """The URL that stands for the webserver's."""
        self.go_on.set()
        app = web.Application()
        app.router.add_post("/graphql", self._pass_on)
        with serving_app(app) as port:
            yield f"http://127.0.0.1:{port}"

    async def _pass_on(self, request: web.Request) -> web.Response:
        assert request.transport
        body = await request.read()
        operation = json.loads(body)["operationName"]
        is_launch = operation == "launchRun"
        if is_launch:
            self.launches += 1
        if operation == self.holds:
            self.arrived.set()
            while not self.go_on.is_set() or self.launches < self.together:
                await asyncio.sleep(0.01)
        if self.down:
            request.transport.abort()
        headers = {"content-type": "application/json"}
        async with (
            ClientSession() as session,
            session.post(f"{self.target}/graphql", data=body, headers=headers) as reply,
        ):
            content = await reply.read()
        if is_launch and self.lose_replies:
            self.lose_replies -= 1
            request.transport.abort()
        return web.Response(body=content, status=reply.status, content_type="application/json")
