"""Closed-loop streaming clients: each sends its next request when the last one has ended."""

import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import httpx
from pydantic import BaseModel, JsonValue, ValidationError

from lora_assets.errors import LoraAssetsError
from lora_assets.records import Record
from lora_assets.records.load import RequestSample
from lora_assets.serving import http_client
from lora_assets.serving.workers import work_through

WARM_UP_ROUNDS = 2
"""Requests that each client sends to each model before a load test, and that count nowhere: after
its start, and after it has loaded an adapter, a server is slow for its first batches."""

_ROUNDS_PER_BLOCK = 4


class ModelLoad(Record):
    """One model's part of a load test; `duration` is the seconds that it alone was under load."""

    samples: tuple[RequestSample, ...]
    duration: float


@dataclass(frozen=True)
class LoadTest:
    """Prompts for each of some models, from `concurrency` clients at a time.

    Raise LoraAssetsError for no prompts, no client, and no model or one named twice.
    """

    models: Sequence[str]
    prompts: Sequence[str]
    concurrency: int = 10
    max_tokens: int = 256

    def __post_init__(self) -> None:
        if not self.prompts:
            raise LoraAssetsError("The load test has no prompts", "Check the eval split.")
        if not self.models or len(set(self.models)) != len(self.models):
            raise LoraAssetsError(
                f"The load test got the models {', '.join(self.models) or '(none)'}",
                "Name one or more models, each once.",
            )
        if self.concurrency < 1:
            raise LoraAssetsError(
                f"The load test got {self.concurrency} clients",
                "Ask for at least one with --concurrency.",
            )

    async def warm_up(self, client: httpx.AsyncClient) -> None:
        """Put each model under the load of the test for WARM_UP_ROUNDS rounds, one after another.

        Every model gets the same prompts as often. They begin with a line break, so that no
        prefix cache knows the measured prompts by then. What fails now and then is counted by
        the test that follows; raise LoraAssetsError when a model answers none of a round.
        """
        others = [f"\n{prompt}" for prompt in self.prompts[: self.concurrency]]
        for model in tuple(self.models) * WARM_UP_ROUNDS:
            samples: list[RequestSample] = []
            await self._send(client, model, others, time.perf_counter(), samples.append)
            if all(sample.error is not None for sample in samples):
                raise LoraAssetsError(
                    f"Every warm-up request to {model} failed: {samples[0].error}",
                    "Check that the server is running and serves this model.",
                )

    async def run(
        self, client: httpx.AsyncClient, progress: Callable[[int, int], None]
    ) -> Mapping[str, ModelLoad]:
        """Send each prompt to each model once, greedily and streaming.

        The models alternate: prompts are dealt into blocks, and each block goes to every model
        before the next one does, in an order that turns around (A B, B A, A B, ...). Within a
        block one model has all the clients: mixed, requests would share the server's batches,
        each would get part of the throughput, and a slow candidate would slow live down and look
        no worse than it. Blocks are short against what changes on a machine, and turning the
        order around cancels a steady drift. A block ends when its last reply does, so it has a
        tail with fewer clients; it is there for a single model too, so that results can be
        compared.

        Call `warm_up` first. `progress` gets how many requests are done, of how many, 0 before
        the first. A failed request is a sample with an error.
        """
        requests = len(self.models) * len(self.prompts)
        progress(0, requests)
        samples: dict[str, list[RequestSample]] = {model: [] for model in self.models}
        durations = dict.fromkeys(self.models, 0.0)

        def ended(model: str, sample: RequestSample) -> None:
            samples[model].append(sample)
            progress(sum(map(len, samples.values())), requests)

        began = time.perf_counter()
        for model, block in self._schedule():
            started = time.perf_counter()
            await self._send(client, model, block, began, partial(ended, model))
            durations[model] += time.perf_counter() - started
        return {
            model: ModelLoad(samples=tuple(own), duration=durations[model])
            for model, own in samples.items()
        }

    def _schedule(self) -> Iterator[tuple[str, Sequence[str]]]:
        """Yield which model gets which prompts next.

        Two blocks at least, so that each model goes first once, and more of them only while
        each keeps all clients busy for some rounds. Prompts are dealt like cards, which gives
        every block the same mixture.
        """
        blocks = len(self.prompts) // (_ROUNDS_PER_BLOCK * self.concurrency)
        blocks = min(max(2, blocks - blocks % 2), len(self.prompts))
        for number in range(blocks):
            for model in self.models if number % 2 == 0 else reversed(self.models):
                yield model, self.prompts[number::blocks]

    async def _send(
        self,
        client: httpx.AsyncClient,
        model: str,
        prompts: Sequence[str],
        began: float,
        ended: Callable[[RequestSample], None],
    ) -> None:
        """Send prompts to one model, all clients at work; `ended` gets each request's sample."""

        async def send(prompt: str) -> None:
            ended(await _request(client, model, prompt, self.max_tokens, began))

        await work_through(prompts, self.concurrency, send)


class _StreamedChoice(BaseModel):
    finish_reason: str | None = None


class _Usage(BaseModel):
    completion_tokens: int


class _Chunk(BaseModel):
    choices: list[_StreamedChoice]
    usage: _Usage | None = None


class _Failed(Exception):
    """The stream can't count as an answer; its text says why."""


async def _request(
    client: httpx.AsyncClient, model: str, prompt: str, max_tokens: int, began: float
) -> RequestSample:
    """Send one request and time it, from the moment it is sent to `[DONE]`."""
    body: dict[str, JsonValue] = {
        "model": model,
        "prompt": prompt,
        "max_tokens": max_tokens,
        "temperature": 0,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    latency = ttft = failure = None
    tokens = 0
    sent = time.perf_counter()
    try:
        async with client.stream("POST", "/v1/completions", json=body) as response:
            if not response.is_success:
                await response.aread()
                raise _Failed(http_client.refused(response).cause)
            first, last, tokens = await _read_stream(response)
        latency, ttft = last - sent, first - sent
    except httpx.RequestError as error:
        failure = http_client.unreachable(error.request, error).cause
    except _Failed as error:
        failure = str(error)
    return RequestSample(
        started=sent - began, latency=latency, ttft=ttft, output_tokens=tokens, error=failure
    )


async def _read_stream(response: httpx.Response) -> tuple[float, float, int]:
    """Return when the first token and `[DONE]` came, and how many tokens there were.

    The first event with a choice is the first token, whatever its text: a token may be
    half a character, and the first one may be the last.
    """
    first: float | None = None
    finish_reason: str | None = None
    tokens: int | None = None
    async for event in _events(response):
        if event == b"[DONE]":
            done = time.perf_counter()
            if first is None or finish_reason not in ("stop", "length"):
                raise _Failed(f"the stream's finish_reason is {finish_reason}")
            if tokens is None:
                raise _Failed("the stream has no usage, so its tokens can't be counted")
            return first, done, tokens
        try:
            chunk = _Chunk.model_validate_json(event)
        except ValidationError:
            message = http_client.server_message(response.request, event.decode(errors="replace"))
            raise _Failed(f"the stream broke off with: {message}") from None
        for choice in chunk.choices:
            first = first or time.perf_counter()
            finish_reason = choice.finish_reason or finish_reason
        if chunk.usage is not None:
            tokens = chunk.usage.completion_tokens
    raise _Failed("the stream ended without [DONE]")


async def _events(response: httpx.Response) -> AsyncIterator[bytes]:
    """Yield the data of server-sent events.

    Not httpx's aiter_lines: it also splits at U+2028 and its like, which JSON may hold.
    """
    rest = b""
    async for piece in response.aiter_bytes():
        *lines, rest = (rest + piece).split(b"\n")
        for line in lines:
            if line.startswith(b"data:"):
                yield line.removeprefix(b"data:").strip()
