import asyncio
import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import Any, TypeVar

import httpx
import pytest
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse

from lora_assets.errors import LoraAssetsError
from lora_assets.load_test import clients, connection
from lora_assets.load_test.generator import WARM_UP_ROUNDS, LoadTest, ModelLoad
from lora_assets.load_test.summary import summarise
from lora_assets.records.load import RequestSample
from lora_assets.serving.http_client import open_client
from tests.support.doubles.broken_vllm import listening
from tests.support.doubles.trickling import trickling

Result = TypeVar("Result")

PAUSE = 0.2
Handle = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
DONE = "data: [DONE]\n\n"


def _event(text: str, finish_reason: str | None = None) -> str:
    choice = {"index": 0, "text": text, "finish_reason": finish_reason}
    return f"data: {json.dumps({'model': 'MODEL', 'choices': [choice]}, ensure_ascii=False)}\n\n"


USAGE = 'data: {"model": "MODEL", "choices": [], "usage": {"completion_tokens": 2}}\n\n'
STREAMS: Mapping[str, list[str]] = {
    "good": [": ping\n\n", _event("a\N{LINE SEPARATOR}b"), _event("", "stop"), USAGE, DONE],
    "carriage returns": [part.replace("\n", "\r") for part in (_event("a", "stop"), USAGE, DONE)],
    "split data": [
        'data: {"model": "MODEL",\ndata: "choices": []}\n\ndata:\n\n',
        *(_event("a", "stop"), USAGE, DONE),
    ],
    "cut done": [_event("a", "stop"), USAGE, "data: [DONE]"],
    "late text": [_event(""), "PAUSE", _event("a", "stop"), USAGE, DONE],
    "empty answer": [_event("", "stop"), USAGE, DONE],
    "no tokens": [_event("a", "stop"), USAGE.replace("2", "0"), DONE],
    "unfinished": [_event("a"), USAGE, DONE],
    "aborted": [_event("a", "abort"), USAGE, DONE],
    "no choice": [USAGE, DONE],
    "no done": [_event("a", "stop"), USAGE],
    "no usage": [_event("a", "stop"), DONE],
    "error event": [_event("a"), 'data: {"error": {"message": "out of memory"}}\n\n', DONE],
    "no json": [_event("a"), "data: oops\n\n", DONE],
    "dies": [_event("a")],
    "other model": [_event("a", "stop").replace("MODEL", "base"), USAGE, DONE],
    "no model": [_event("a", "stop").replace('"model"', '"x"'), USAGE, DONE],
    "endless": [":" * 1000 + "\n\n"] * 2000,
}


class StreamingDouble:
    """A completions server that behaves as the prompt says and remembers who was asked."""

    def __init__(self, timeout: float = 5, api_key: str | None = None) -> None:
        self.timeout = timeout
        self.api_key = api_key
        self.keys: set[str | None] = set()
        self.clients: list[int] = []
        self.asked: list[tuple[str, str]] = []
        self.progress: list[tuple[int, int]] = []
        self.app = FastAPI()

        @self.app.post("/v1/completions")
        async def complete(request: Request, body: dict[str, Any]) -> Response:
            assert request.client is not None
            self.clients.append(request.client.port)
            self.keys.add(request.headers.get("authorization"))
            self.asked.append((body["model"], body["prompt"]))
            assert body["stream"] is True
            assert body["temperature"] == 0
            behaviour = body["prompt"].strip().split("/")[0]
            if body["model"] == "unknown":
                return JSONResponse({"error": {"message": "no such model"}}, 404)
            if behaviour == "busy":
                return JSONResponse({"error": {"message": "busy"}}, 503)
            return StreamingResponse(
                _stream(behaviour, body["model"]), media_type="text/event-stream"
            )

    def load(
        self, prompts: list[str], models: tuple[str, ...] = ("m",), concurrency: int = 10
    ) -> Mapping[str, ModelLoad]:
        test = LoadTest(models, prompts, concurrency)
        return self._while_it_runs(
            lambda client: test.run(client, lambda *done: self.progress.append((done[0], done[1])))
        )

    def warm_up(self, prompts: list[str], models: tuple[str, ...], concurrency: int = 10) -> None:
        self._while_it_runs(LoadTest(models, prompts, concurrency).warm_up)

    def _while_it_runs(self, do: Callable[[httpx.AsyncClient], Awaitable[Result]]) -> Result:
        async def run(url: str) -> Result:
            async with open_client(url, self.timeout, self.api_key) as client:
                return await do(client)

        with listening(self.app) as url:
            return asyncio.run(run(url))


async def _stream(behaviour: str, model: str) -> AsyncIterator[bytes]:
    for part in (each.replace("MODEL", model) for each in STREAMS[behaviour]):
        if part == "PAUSE":
            await asyncio.sleep(PAUSE)
            continue
        # In pieces, as a network may deliver it.
        yield part[:7].encode()
        yield part[7:-1].encode()
        yield part[-1:].encode()
    if behaviour == "dies":
        raise ConnectionResetError


def test_a_complete_stream_is_timed_and_its_tokens_are_counted() -> None:
    streams = ("good", "carriage returns", "split data", "cut done", "late text")
    result = StreamingDouble().load([f"{stream}/1" for stream in streams])["m"]
    assert len(result.samples) == 5
    for sample in result.samples:
        assert (sample.error, sample.output_tokens) == (None, 2)
        assert sample.ttft is not None
        assert sample.latency is not None
        assert 0 < sample.ttft <= sample.latency <= result.duration


def test_the_first_token_is_the_first_with_text() -> None:
    (sample,) = StreamingDouble().load(["late text/1"])["m"].samples
    assert sample.ttft is not None
    assert sample.ttft >= PAUSE


def test_a_client_keeps_its_connection() -> None:
    server = StreamingDouble()
    result = server.load([f"{'late text' if n == 3 else 'good'}/{n}" for n in range(6)], ("m",), 1)
    assert [sample.error for sample in result["m"].samples] == [None] * 6
    assert len(set(server.clients)) == 1


def measured(handle: Handle, prompts: int, timeout: float = 5) -> Sequence[RequestSample]:
    """Return what one client measures at a server that answers by `handle`."""

    async def measure() -> ModelLoad:
        server = await asyncio.start_server(handle, "127.0.0.1", 0)
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with server, open_client(url, timeout) as client:
            return (await LoadTest(["m"], ["p"] * prompts, 1).run(client, lambda *_: None))["m"]

    return asyncio.run(measure()).samples


def test_a_connection_that_the_server_closed_meanwhile_is_no_failure() -> None:
    stream = "".join(STREAMS["good"]).replace("MODEL", "m").encode()
    connections: list[int] = []

    async def answer_once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.append(0)
        head = await reader.readuntil(b"\r\n\r\n")
        await reader.readexactly(int(head.rpartition(b"Content-Length: ")[2]))
        length = b"Content-Length: %d\r\n\r\n" % len(stream)
        writer.write(b"HTTP/1.1 200 OK\r\n" + length + stream)
        await reader.read(1)
        writer.close()

    assert [sample.error for sample in measured(answer_once, 4)] == [None] * 4
    assert len(connections) == 4


@pytest.mark.parametrize(("drops", "error"), [(True, "peer closed"), (False, "nothing came for")])
def test_a_request_that_the_server_has_taken_is_sent_once_on_a_kept_connection_too(
    monkeypatch: pytest.MonkeyPatch, drops: bool, error: str
) -> None:
    monkeypatch.setattr(clients, "_CLOSED_WHILE_IDLE", 0.0)
    stream = "".join(STREAMS["good"]).replace("MODEL", "m").encode()
    taken: list[int] = []

    async def answer_first(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while head := await reader.readuntil(b"\r\n\r\n"):
            await reader.readexactly(int(head.rpartition(b"Content-Length: ")[2]))
            taken.append(0)
            if len(taken) == 1:
                length = b"Content-Length: %d\r\n\r\n" % len(stream)
                writer.write(b"HTTP/1.1 200 OK\r\n" + length + stream)
            elif drops:
                writer.close()
                return

    first, second = measured(answer_first, 2, PAUSE)
    assert (first.error, error in str(second.error), len(taken)) == (None, True, 2)


def test_a_server_that_falls_silent_fails_the_request_and_not_the_test() -> None:
    (sample,) = StreamingDouble(timeout=PAUSE / 4).load(["late text/1"])["m"].samples
    assert "nothing came for 0.05 s" in str(sample.error)


@pytest.mark.parametrize("head", [b"X: ", b"Transfer-Encoding: chunked\r\n\r\nffff\r\n", b"\r\n"])
def test_a_server_that_sends_byte_by_byte_fails_the_request_at_the_deadline(head: bytes) -> None:
    async def measure(url: str) -> ModelLoad:
        async with open_client(url, 600, deadline=0.3) as client:
            return (await LoadTest(["m"], ["p"] * 4, 2).run(client, lambda *_: None))["m"]

    with trickling(b"HTTP/1.1 200 OK\r\n" + head) as url:
        load = asyncio.run(measure(url))
    assert len(load.samples) == 4
    assert all("no whole reply within 0.3 s" in str(sample.error) for sample in load.samples)


def test_a_stream_is_read_up_to_its_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "MOST_REPLY_BYTES", 1 << 20)
    (sample,) = StreamingDouble().load(["endless/1"])["m"].samples
    assert "the reply has more than 1 MiB" in str(sample.error)


@pytest.mark.parametrize(
    ("behaviour", "error"),
    [
        ("empty answer", r"no text \(2 tokens\)"),
        ("no tokens", r"no text \(0 tokens\)"),
        ("busy", "with 503: busy"),
        ("unfinished", "finish_reason is None"),
        ("aborted", "finish_reason is abort"),
        ("no choice", "finish_reason is None"),
        ("no done", r"without \[DONE\]"),
        ("no usage", "no usage"),
        ("error event", "out of memory"),
        ("no json", "broke off with: oops"),
        ("dies", "peer closed connection"),
        ("other model", "the model m was asked, and base answered"),
        ("no model", "the model m was asked, and none by name answered"),
    ],
)
def test_a_failed_request_is_a_sample_with_an_error_and_is_never_dropped(
    behaviour: str, error: str
) -> None:
    result = StreamingDouble().load(["good/0", *[f"{behaviour}/{n}" for n in range(3)]])["m"]
    failures = [sample.error for sample in result.samples if sample.error is not None]
    assert all(re.search(error, failure) for failure in failures)
    metrics = summarise(result.samples, result.duration)
    assert (metrics.requests, metrics.failures) == (4, 3)


def test_two_models_go_turn_about_in_whole_blocks_and_get_the_same_prompts() -> None:
    server = StreamingDouble()
    prompts = [f"good/{number}" for number in range(16)]
    result = server.load(prompts, ("candidate", "live"), concurrency=2)
    measured = server.asked
    turns = [measured[start : start + 8] for start in range(0, 32, 8)]
    order = ("candidate", "live", "live", "candidate")
    assert [{model for model, _ in turn} for turn in turns] == [{model} for model in order]
    assert {prompt for _, prompt in turns[0]} == {prompt for _, prompt in turns[1]}
    for model in ("candidate", "live"):
        assert sorted(p for m, p in measured if m == model) == sorted(prompts)
        assert len(result[model].samples) == 16
    spans = [
        max(sample.started for sample in load.samples) - min(s.started for s in load.samples)
        for load in result.values()
    ]
    assert result["candidate"].duration < spans[0]
    assert server.progress == [(done, 32) for done in range(33)]


def test_the_warm_up_loads_all_models_alike_and_with_other_prompts_than_the_test() -> None:
    server = StreamingDouble()
    prompts = [f"good/{number}" for number in range(16)]
    server.warm_up(prompts, ("candidate", "live"), concurrency=4)
    warm = {f"\n{prompt}" for prompt in prompts[:4]}
    rounds = [server.asked[start : start + 4] for start in range(0, len(server.asked), 4)]
    models = [{model for model, _ in each} for each in rounds]
    assert models == [{"candidate"}, {"live"}] * WARM_UP_ROUNDS
    assert all({prompt for _, prompt in each} == warm for each in rounds)
    assert not warm & set(prompts)


def test_a_request_that_fails_in_the_warm_up_is_left_for_the_test_to_count() -> None:
    server = StreamingDouble()
    server.warm_up(["busy/1", "good/2"], ("m",))
    assert len(server.asked) == 2 * WARM_UP_ROUNDS


def test_a_model_that_is_not_served_ends_the_warm_up() -> None:
    server = StreamingDouble()
    with pytest.raises(LoraAssetsError, match=r"request to unknown failed: .*no such model"):
        server.warm_up(["good/1"], ("m", "unknown"))
    assert len(server.asked) == 2


def test_a_test_of_nothing_is_refused() -> None:
    with pytest.raises(LoraAssetsError, match="has no prompts"):
        LoadTest(["m"], [])


@pytest.mark.parametrize(
    ("response", "error"),
    [
        (b"oops\r\n\r\n", "the response can't be read"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n", "can't be read"),
        (b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n\r\n", "its encoding is gzip"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc", r"ended without \[DONE\]"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"x" * (2 << 20), "the head of the reply has more than 1 MiB"),
        (b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * (2 << 20), "an event has more than 1 MiB"),
    ],
)
def test_what_is_no_response_is_a_sample_with_an_error(response: bytes, error: str) -> None:
    async def say(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(response)
        writer.close()

    samples = measured(say, 2)
    assert [bool(re.search(error, str(sample.error))) for sample in samples] == [True, True]
