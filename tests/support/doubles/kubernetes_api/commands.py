"""Commands through pods/exec: local processes, in which every absolute path is the pod's."""

import asyncio
import json
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from threading import Condition

from aiohttp import WSMsgType, web

from tests.support.doubles.kubernetes_api.pods import Pod
from tests.support.doubles.kubernetes_api.replies import Refused

_STDIN, _STDOUT, _STDERR, _ERROR, _CLOSE = 0, 1, 2, 3, 255


@dataclass
class Faults:
    """What goes wrong with commands from now on; offsets in bytes of standard input.

    `noise` is what commands print before their answer.

    `hang` is an argument: commands that have it neither read nor end.
    """

    forbidden: bool = False
    noise: bytes = b""
    hang: str | None = None
    break_after: int | None = None
    flip_at: int | None = None


@dataclass
class Commands:
    """What was executed, and what goes wrong with it."""

    faults: Faults = field(default_factory=Faults)
    protocols: Sequence[str] = ("v5.channel.k8s.io", "v4.channel.k8s.io")
    commands: list[Sequence[str]] = field(default_factory=list)
    stdin_bytes: int = 0
    _stopping: asyncio.Event = field(default_factory=asyncio.Event)
    _running: int = 0
    _changed: Condition = field(default_factory=Condition)

    def wait_for_commands(self, timeout_s: float = 30) -> None:
        """Return when no command runs any more."""
        with self._changed:
            assert self._changed.wait_for(lambda: self._running == 0, timeout_s), "still running"

    async def execute(self, request: web.Request, pod: Pod) -> web.StreamResponse:
        """Run the request's command in the pod, its streams in the request's websocket."""
        if self.faults.forbidden:
            # Without `create`, Kubernetes 1.36 gives no reason.
            raise Refused(403, "Forbidden", f'pods "{pod.name}" is forbidden: ')
        container = request.query.get("container")
        if container is None and len(pod.containers) > 1:
            there = f"choose one of: [{' '.join(pod.containers)}]"
            message = f"a container name must be specified for pod {pod.name}, {there}"
            raise Refused(400, "BadRequest", message)
        if container not in (None, *pod.containers):
            message = f"container {container} is not valid for pod {pod.name}"
            raise Refused(400, "BadRequest", message)
        socket = web.WebSocketResponse(protocols=self.protocols)
        await socket.prepare(request)
        self._count(+1)
        try:
            await self._command(request, socket, pod)
        finally:
            self._count(-1)
        return socket

    async def _command(self, request: web.Request, socket: web.WebSocketResponse, pod: Pod) -> None:
        command = request.query.getall("command")
        self.commands.append(command)
        if self.faults.hang in command:
            await self._stopping.wait()
            return
        if command[0] not in pod.programs:
            message = f'exec: "{command[0]}": executable file not found in $PATH'
            await _end(socket, {"status": "Failure", "message": message, "code": 500})
            return
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *(str(pod.folder / a[1:]) if a.startswith("/") else a for a in command[1:]),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        assert process.stdin
        assert process.stdout
        assert process.stderr
        await socket.send_bytes(bytes([_STDOUT]) + self.faults.noise)
        taking = asyncio.create_task(self._take(request, socket, process.stdin))
        await asyncio.gather(
            _pass_on(process.stdout, socket, _STDOUT), _pass_on(process.stderr, socket, _STDERR)
        )
        code = await process.wait()
        message = f"command terminated with non-zero exit code: exit code {code}"
        failed = {"status": "Failure", "message": message, "reason": "NonZeroExitCode"}
        await _end(socket, failed if code else {"status": "Success"})
        await taking

    async def _take(
        self, request: web.Request, socket: web.WebSocketResponse, stdin: asyncio.StreamWriter
    ) -> None:
        """Pass on what comes for standard input, and close it with the connection."""
        taken = 0
        async for message in socket:
            assert message.type is WSMsgType.BINARY
            if message.data == bytes([_CLOSE, _STDIN]):
                stdin.close()
            elif message.data[0] == _STDIN:
                block = bytearray(message.data[1:])
                flip, stop = self.faults.flip_at, self.faults.break_after
                if flip is not None and 0 <= flip - taken < len(block):
                    block[flip - taken] ^= 1
                if stop is not None:
                    del block[max(stop - taken, 0) :]
                taken += len(block)
                self.stdin_bytes += len(block)
                # What a command does not read any more is dropped, as in a cluster.
                if not stdin.is_closing():
                    stdin.write(block)
                    with suppress(ConnectionError):
                        await stdin.drain()
                if taken == stop and request.transport:
                    request.transport.abort()
                    break
        stdin.close()

    def _count(self, change: int) -> None:
        with self._changed:
            self._running += change
            self._changed.notify_all()


async def _pass_on(
    stream: asyncio.StreamReader, socket: web.WebSocketResponse, channel: int
) -> None:
    while block := await stream.read(1 << 15):
        with suppress(ConnectionError):  # The client is gone; the command runs on to its end.
            await socket.send_bytes(bytes([channel]) + block)


async def _end(socket: web.WebSocketResponse, status: Mapping[str, object]) -> None:
    with suppress(ConnectionError):
        await socket.send_bytes(bytes([_ERROR]) + json.dumps(status).encode())
        await socket.close()
