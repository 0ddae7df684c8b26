"""Closed-loop streaming clients: each sends its next request when the last one has ended."""

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import count

from lora_assets.errors import LoraAssetsError
from lora_assets.load_test import client_processes
from lora_assets.load_test.client_processes import ClientProcesses
from lora_assets.load_test.clients import Clients
from lora_assets.records import Record
from lora_assets.records.load import LoadConditions, RequestSample
from lora_assets.serving.bounded_client import BoundedClient

WARM_UP_ROUNDS = 2
"""Requests that each client sends to each model before a load test, and that count nowhere: after
its start, and after it has loaded an adapter, a server is slow for its first batches."""

_ROUNDS_PER_BLOCK = 4


class Block(Record):
    """The requests for which one model had all the clients, and the seconds that it took."""

    samples: tuple[RequestSample, ...]
    duration: float


class ModelLoad(Record):
    """One model's part of a load test, block by block: of every model with the same prompts.

    `lag` is by how many seconds the clients themselves were late (P95 over the test's time).
    """

    blocks: tuple[Block, ...]
    lag: float = 0.0

    @property
    def samples(self) -> tuple[RequestSample, ...]:
        return tuple(sample for block in self.blocks for sample in block.samples)

    @property
    def duration(self) -> float:
        """Return the seconds that this model alone was under load."""
        return sum(block.duration for block in self.blocks)

    def __add__(self, more: "ModelLoad") -> "ModelLoad":
        return ModelLoad(blocks=self.blocks + more.blocks, lag=max(self.lag, more.lag))


@dataclass(frozen=True)
class LoadTest:
    """Prompts for each of some models, from `concurrency` clients at a time.

    Raise LoraAssetsError for no prompts.
    """

    models: Sequence[str]
    prompts: Sequence[str]
    concurrency: int = 10
    max_tokens: int = 256

    def __post_init__(self) -> None:
        if not self.prompts:
            raise LoraAssetsError("The load test has no prompts", "Check the eval split.")

    def conditions(self, replicas: int, server: str) -> LoadConditions:
        """Return under what this test is made, on so many replicas of such a server."""
        return LoadConditions(
            concurrency=self.concurrency,
            max_tokens=self.max_tokens,
            prompts=hashlib.sha256(json.dumps(self.prompts).encode()).hexdigest(),
            replicas=replicas,
            server=server,
        )

    async def warm_up(self, client: BoundedClient) -> None:
        """Put each model under the load of the test for WARM_UP_ROUNDS rounds, one after another.

        Every model gets the same prompts as often. They begin with a line break, so that no
        prefix cache knows the measured prompts by then. What fails now and then is counted by
        the test that follows; raise LoraAssetsError when a model answers none of a round.
        """
        others = [f"\n{prompt}" for prompt in self.prompts[: self.concurrency]]
        for model in tuple(self.models) * WARM_UP_ROUNDS:
            samples: list[RequestSample] = []
            began = time.perf_counter()
            async with self._clients(client, len(others)) as clients:
                await clients.send(model, others, began, samples.append)
            if all(sample.error is not None for sample in samples):
                raise LoraAssetsError(
                    f"Every warm-up request to {model} failed: {samples[0].error}",
                    "Check that the server is running and serves this model.",
                )

    async def run(
        self, client: BoundedClient, progress: Callable[[int, int], None]
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
        blocks: dict[str, list[Block]] = {model: [] for model in self.models}
        done = count(1)

        def ended(samples: list[RequestSample], sample: RequestSample) -> None:
            samples.append(sample)
            progress(next(done), requests)

        at_once = min(self.concurrency, len(self.prompts))
        async with self._clients(client, at_once) as clients:
            began = time.perf_counter()
            for model, prompts in self._schedule():
                samples: list[RequestSample] = []
                started = time.perf_counter()
                await clients.send(model, prompts, began, partial(ended, samples))
                lasted = time.perf_counter() - started
                blocks[model].append(Block(samples=tuple(samples), duration=lasted))
            lag = clients.lag
        return {model: ModelLoad(blocks=tuple(own), lag=lag) for model, own in blocks.items()}

    def _clients(self, client: BoundedClient, at_once: int) -> Clients | ClientProcesses:
        kind = Clients if at_once <= client_processes.CLIENTS_A_PROCESS else ClientProcesses
        return kind(client, self.max_tokens, at_once)

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
