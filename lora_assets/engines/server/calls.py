"""A client's request as the event loop sees it and as the engine's thread works on it."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field

import torch

from lora_assets.engines.server.answer_text import AnswerText
from lora_assets.engines.server.lora import LoraWeights
from lora_assets.engines.server.metrics import FinishReason
from lora_assets.engines.server.sampling import Sampling, TokenLogprobs


class EngineStopped(Exception):
    """The engine takes no more requests: it was closed, or an error ended its thread."""


@dataclass(frozen=True)
class Adapter:
    """The weights that a request was resolved to, under the name that it asked for."""

    name: str
    weights: LoraWeights


@dataclass(frozen=True)
class Delta:
    """What is new of one row; `finish_reason` is set on its last one."""

    index: int
    text: str
    tokens: tuple[int, ...]
    logprobs: tuple[TokenLogprobs, ...]
    finish_reason: FinishReason | None
    stop_reason: str | None
    prompt_logprobs: tuple[TokenLogprobs, ...] = ()


@dataclass(eq=False)
class Row:
    """One prompt on its way through the engine, which alone changes it."""

    call: "Call"
    index: int
    prompt: Sequence[int]
    sampling: Sampling
    adapter: Adapter | None
    text: AnswerText
    generator: torch.Generator | None
    tokens: list[int] = field(default_factory=list)
    logprobs: list[TokenLogprobs] = field(default_factory=list)
    prompt_logprobs: tuple[TokenLogprobs, ...] = ()
    sent: int = 0
    last_token_at: float = 0.0

    @property
    def weights(self) -> LoraWeights | None:
        """The adapter's weights, held for as long as the row lives, whatever is unloaded."""
        return None if self.adapter is None else self.adapter.weights

    def news(self, reason: FinishReason | None) -> "Delta":
        """What came since the last call, which makes it old."""
        tokens, logprobs = tuple(self.tokens[self.sent :]), tuple(self.logprobs[self.sent :])
        prompt = self.prompt_logprobs if self.sent == 0 else ()
        self.sent = len(self.tokens)
        text = self.text.take()
        return Delta(self.index, text, tokens, logprobs, reason, self.text.stopped_by, prompt)


class Call:
    """One client's request: its rows, and what they produce, in order of production.

    Iterate it for the deltas; with `stream` false each row gives one, at its end. `abandon`
    it when nobody listens any more. Raises EngineStopped when the engine ends before it.
    """

    def __init__(self, stream: bool, arrived: float) -> None:
        self.stream = stream
        self.arrived = arrived
        self.abandoned = False
        self.unfinished = 0
        self.loop = asyncio.get_running_loop()
        self.deltas: asyncio.Queue[Delta | EngineStopped] = asyncio.Queue()

    def abandon(self) -> None:
        self.abandoned = True

    async def __aiter__(self) -> AsyncIterator[Delta]:
        while self.unfinished:
            delta = await self.deltas.get()
            if isinstance(delta, EngineStopped):
                raise delta
            self.unfinished -= delta.finish_reason is not None
            yield delta


def deliver(deltas: Sequence[tuple[Call, Delta]]) -> None:
    """Hand deltas to their event loops, waking each loop once."""
    by_loop: dict[asyncio.AbstractEventLoop, list[tuple[Call, Delta]]] = {}
    for call, delta in deltas:
        by_loop.setdefault(call.loop, []).append((call, delta))
    for loop, news in by_loop.items():
        if not loop.is_closed():
            loop.call_soon_threadsafe(_hand_out, news)


def _hand_out(news: Sequence[tuple[Call, Delta]]) -> None:
    for call, delta in news:
        call.deltas.put_nowait(delta)
