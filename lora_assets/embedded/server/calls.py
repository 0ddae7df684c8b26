"""A client's request as the event loop sees it and as the engine's threads work on it."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field

import torch

from lora_assets.embedded.server.answer_text import AnswerText
from lora_assets.embedded.server.lora import LoraWeights
from lora_assets.embedded.server.metrics import FinishReason
from lora_assets.embedded.server.sampling import Sampling, TokenLogprobs


class EngineStopped(Exception):
    """The engine takes no more requests: it was closed, or an error ended its threads."""


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


class Call:
    """One client's request: what its rows produce, in order of production.

    Iterate it for the deltas; with `stream` false each row gives one, at its end. `abandon`
    it when nobody listens any more. Raises EngineStopped when the engine ends before it.
    """

    def __init__(self, rows: int, stream: bool, arrived: float) -> None:
        self.stream = stream
        self.arrived = arrived
        self.abandoned = False
        self.loop = asyncio.get_running_loop()
        self.deltas: asyncio.Queue[Delta | EngineStopped] = asyncio.Queue()
        self._unfinished = rows

    def abandon(self) -> None:
        """Let the engine drop what is left of it."""
        self.abandoned = True

    async def __aiter__(self) -> AsyncIterator[Delta]:
        while self._unfinished:
            delta = await self.deltas.get()
            if isinstance(delta, EngineStopped):
                raise delta
            self._unfinished -= delta.finish_reason is not None
            yield delta


News = tuple[Call, Delta | EngineStopped]


@dataclass(eq=False)
class Row:
    """One prompt on its way through the engine, held by one thread at a time.

    It keeps its adapter's weights to its end, whatever is unloaded meanwhile.
    """

    call: Call
    index: int
    prompt: Sequence[int]
    sampling: Sampling
    adapter: Adapter | None
    text: AnswerText
    generator: torch.Generator | None
    tokens: list[int] = field(default_factory=list)
    logprobs: list[TokenLogprobs] = field(default_factory=list)
    prompt_logprobs: tuple[TokenLogprobs, ...] = ()
    last_token_at: float = 0.0
    _sent: int = 0

    @property
    def weights(self) -> LoraWeights | None:
        """None: the base model alone."""
        return None if self.adapter is None else self.adapter.weights

    @property
    def adapter_name(self) -> str | None:
        """None: the base model alone."""
        return None if self.adapter is None else self.adapter.name

    def append(self, token: int, end_token: int, max_length: int) -> FinishReason | None:
        """Take the next token; returns why it was the last one, if it was."""
        self.tokens.append(token)
        end = token == end_token and not self.sampling.ignore_eos
        if not end and (self.call.stream or self.sampling.stop):
            self.text.add(token)
        if end or self.text.stopped_by is not None:
            self.text.finish(self.tokens[:-1] if end else self.tokens)
            return "stop"
        full = len(self.prompt) + len(self.tokens) >= max_length
        if full or len(self.tokens) >= self.sampling.max_tokens:
            self.text.finish(self.tokens)
            return "stop" if self.text.stopped_by is not None else "length"
        return None

    def delta(self, reason: FinishReason | None) -> Delta:
        """What came since the last delta."""
        tokens = tuple(self.tokens[self._sent :])
        logprobs = tuple(self.logprobs[self._sent :])
        prompt = self.prompt_logprobs if self._sent == 0 else ()
        self._sent = len(self.tokens)
        text = self.text.take()
        return Delta(self.index, text, tokens, logprobs, reason, self.text.stopped_by, prompt)


def deliver(news: Sequence[News]) -> None:
    """Hand deltas to their event loops, waking each loop once."""
    by_loop: dict[asyncio.AbstractEventLoop, list[News]] = {}
    for call, delta in news:
        by_loop.setdefault(call.loop, []).append((call, delta))
    for loop, own in by_loop.items():
        if not loop.is_closed():
            loop.call_soon_threadsafe(_hand_out, own)


def _hand_out(news: Sequence[News]) -> None:
    for call, delta in news:
        call.deltas.put_nowait(delta)
