"""A client's request as the event loop sees it and as the engine's threads work on it."""

import asyncio
from collections.abc import AsyncIterator, Sequence, Set
from dataclasses import dataclass

from tokenizers import Tokenizer
from tokenizers.decoders import DecodeStream
from torch import Tensor

from lora_assets.embedded.server.lora import LoraWeights
from lora_assets.embedded.server.metrics import FinishReason


class EngineStopped(Exception):
    """The engine takes no more requests: it was closed, or an error ended its threads."""


@dataclass(frozen=True)
class Adapter:
    """The weights that a request was resolved to, under the name that it asked for."""

    name: str
    weights: LoraWeights


@dataclass(frozen=True)
class Asked:
    """A prompt (token ids) and how to answer it, greedily.

    Without an `adapter` the base model answers. `logprobs` is the number of alternatives to
    every token; None asks for no log-probabilities. A `stream` brings each token as it comes.
    """

    prompt: Sequence[int]
    max_tokens: int
    adapter: Adapter | None = None
    ignore_eos: bool = False
    logprobs: int | None = None
    stream: bool = False


@dataclass(frozen=True)
class TokenLogprobs:
    """A token, its log-probability (natural), and the likeliest tokens at its place."""

    token: int
    logprob: float
    top: tuple[tuple[int, float], ...]


@dataclass(frozen=True)
class Delta:
    """The new part of an answer; `finish_reason` is set on the last one."""

    text: str
    tokens: tuple[int, ...]
    logprobs: tuple[TokenLogprobs, ...]
    finish_reason: FinishReason | None


class Call:
    """One prompt on its way through the engine, held by one of its threads at a time.

    The client iterates it for the deltas: one per token of a stream, else one at the end. It
    keeps its adapter's weights to its end, whatever is unloaded meanwhile. Raises EngineStopped
    when the engine ends before it.
    """

    def __init__(self, asked: Asked, tokenizer: Tokenizer, arrived: float) -> None:
        self.asked = asked
        self.arrived = arrived
        self.abandoned = False
        self.loop = asyncio.get_running_loop()
        self.deltas: asyncio.Queue[Delta | EngineStopped] = asyncio.Queue()
        self.tokens: list[int] = []
        self.last_token_at = arrived
        self._tokenizer = tokenizer
        self._pieces = DecodeStream(skip_special_tokens=True)
        self._logprobs: list[TokenLogprobs] = []
        self._sent = 0
        self._text = ""

    def abandon(self) -> None:
        """Let the engine drop the rest: nobody listens any more."""
        self.abandoned = True

    async def __aiter__(self) -> AsyncIterator[Delta]:
        ended = False
        while not ended:
            delta = await self.deltas.get()
            if isinstance(delta, EngineStopped):
                raise delta
            ended = delta.finish_reason is not None
            yield delta

    @property
    def weights(self) -> LoraWeights | None:
        """Return the adapter's weights, or None for the base model alone."""
        return None if self.asked.adapter is None else self.asked.adapter.weights

    @property
    def adapter_name(self) -> str | None:
        """Return the adapter's name, or None for the base model alone."""
        return None if self.asked.adapter is None else self.asked.adapter.name

    def append(
        self, token: int, logits: Tensor, end_tokens: Set[int], max_length: int
    ) -> FinishReason | None:
        """Take the next token, chosen from `logits`; return why it was the last one, if it was."""
        self.tokens.append(token)
        if self.asked.logprobs is not None:
            self._logprobs.append(_logprobs_of(logits, token, self.asked.logprobs))
        if token in end_tokens and not self.asked.ignore_eos:
            return "stop"
        full = len(self.asked.prompt) + len(self.tokens) >= max_length
        return "length" if full or len(self.tokens) >= self.asked.max_tokens else None

    def delta(self, reason: FinishReason | None) -> Delta:
        """Return what came since the last delta."""
        if reason is None:
            text = self._pieces.step(self._tokenizer, self.tokens[-1]) or ""
        else:
            # The whole text again: a stream holds half a character back, the end shows it.
            whole = self._tokenizer.decode(self.tokens, skip_special_tokens=True)
            text = whole[len(self._text) :]
        new = slice(self._sent, None)
        self._text += text
        self._sent = len(self.tokens)
        return Delta(text, tuple(self.tokens[new]), tuple(self._logprobs[new]), reason)


News = tuple[Call, Delta | EngineStopped]


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


def _logprobs_of(logits: Tensor, token: int, count: int) -> TokenLogprobs:
    logprobs = logits.log_softmax(dim=-1)
    values, indices = logprobs.topk(count)
    top = tuple(zip(indices.tolist(), values.tolist(), strict=True))
    return TokenLogprobs(token, float(logprobs[token]), top)
