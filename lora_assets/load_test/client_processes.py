"""Clients of a load test in processes of their own: more of them than one event loop serves well.

    python -m lora_assets.load_test.client_processes

is one of the processes. It reads a line of JSON for the server and one for each block, and writes
one for each request and one for the end of the block. It ends when its input does.
"""

import asyncio
import json
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import Sequence
from typing import Self

from lora_assets.errors import LoraAssetsError
from lora_assets.load_test.clients import Clients, Ended
from lora_assets.records.load import RequestSample
from lora_assets.serving.bounded_client import BoundedClient
from lora_assets.serving.http_client import open_client
from lora_assets.serving.workers import work_through

CLIENTS_A_PROCESS = 200
"""Up to here one process adds less than 3 % to TTFT's P95 (`python -m benchmarks.load_test`)."""

_COMMAND = (sys.executable, "-m", "lora_assets.load_test.client_processes")


class ClientProcesses:
    """Does what `Clients` does, with at most CLIENTS_A_PROCESS of the connections in a process."""

    def __init__(self, client: BoundedClient, max_tokens: int, connections: int) -> None:
        self._client = client
        self._max_tokens = max_tokens
        self._connections = connections
        self._processes: list[Process] = []
        self.lag = 0.0

    async def __aenter__(self) -> Self:
        count = -(-self._connections // CLIENTS_A_PROCESS)
        server = {
            "base_url": str(self._client.base_url),
            "timeout": self._client.timeout.read,
            "deadline": self._client.deadline,
            # By the pipe: arguments and variables of a process are seen by others.
            "api_key": self._client.headers.get("authorization", "").removeprefix("Bearer "),
            "max_tokens": self._max_tokens,
        }
        try:
            for number in range(count):
                # Ctrl-C is for the parent, which ends them.
                process = await asyncio.create_subprocess_exec(
                    *_COMMAND, stdin=PIPE, stdout=PIPE, start_new_session=True
                )
                self._processes.append(process)
                connections = len(range(number, self._connections, count))
                await _write(process, {**server, "connections": connections})
            for process in self._processes:
                await _read(process)
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        for process in self._processes:
            if process.returncode is None:
                process.kill()
        for process in self._processes:
            await process.wait()

    async def send(self, model: str, prompts: Sequence[str], began: float, ended: Ended) -> None:
        """Send each prompt once, dealt over the processes; raise where one of them is lost."""
        count = len(self._processes)

        async def block(numbered: tuple[int, Process]) -> None:
            number, process = numbered
            own = prompts[number::count]
            await _write(process, {"model": model, "prompts": own, "began": began})
            while (lag := (said := await _read(process)).get("lag")) is None:
                ended(RequestSample.model_validate(said))
            self.lag = max(self.lag, lag)

        await work_through(enumerate(self._processes), count, block)


async def _write(process: Process, message: dict[str, object]) -> None:
    assert process.stdin is not None
    process.stdin.write(json.dumps(message).encode() + b"\n")
    try:
        await process.stdin.drain()
    except ConnectionError:
        # Why is told where its reply is missing.
        return


async def _read(process: Process) -> dict[str, float | None]:
    assert process.stdout is not None
    line = await process.stdout.readline()
    if not line.endswith(b"\n"):
        raise LoraAssetsError(
            f"A process of the load test's clients ended (exit status {await process.wait()})",
            "See the lines before this one and the machine's memory; then run the load test again.",
        )
    said: dict[str, float | None] = json.loads(line)
    return said


async def _serve() -> None:
    given = json.loads(sys.stdin.readline())
    own = [given.pop(name) for name in ("max_tokens", "connections")]
    async with open_client(**given) as client, Clients(client, *own) as clients:
        _say("{}")
        while line := await asyncio.to_thread(sys.stdin.readline):
            await clients.send(
                **json.loads(line), ended=lambda sample: _say(sample.model_dump_json())
            )
            _say(json.dumps({"lag": clients.lag}))


def _say(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    try:
        asyncio.run(_serve())
    except (LoraAssetsError, BrokenPipeError) as error:
        sys.exit(str(error))
