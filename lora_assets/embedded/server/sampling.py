"""Choosing the next token of every row, and the log-probabilities that were asked for."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor


@dataclass(frozen=True)
class Sampling:
    """How one row's answer is made; `logprobs` is how many alternatives, None for none at all.

    A temperature of 0 is greedy. `prompt_logprobs` asks for those of the prompt's tokens too.
    """

    max_tokens: int
    temperature: float = 1.0
    top_p: float = 1.0
    seed: int | None = None
    stop: tuple[str, ...] = ()
    ignore_eos: bool = False
    logprobs: int | None = None
    prompt_logprobs: bool = False


@dataclass(frozen=True)
class TokenLogprobs:
    """A token, its log-probability (natural), and the likeliest tokens at its place."""

    token: int
    logprob: float
    top: tuple[tuple[int, float], ...] = field(default=())


def new_generator(sampling: Sampling) -> torch.Generator | None:
    """The row's own source of chance, so that a seed gives the same answer in any batch."""
    if sampling.temperature == 0:
        return None
    generator = torch.Generator()
    if sampling.seed is None:
        generator.seed()
    else:
        generator.manual_seed(sampling.seed)
    return generator


def choose(
    logits: Tensor, samplings: Sequence[Sampling], generators: Sequence[torch.Generator | None]
) -> list[int | None]:
    """The next token of every row of `logits` (rows, vocabulary); None where they are NaN."""
    best, tokens = logits.max(dim=-1)
    chosen: list[int | None] = [
        None if math.isnan(value) else token
        for value, token in zip(best.tolist(), tokens.tolist(), strict=True)
    ]
    for row, (sampling, generator) in enumerate(zip(samplings, generators, strict=True)):
        if generator is not None and chosen[row] is not None:
            chosen[row] = _draw(logits[row], sampling, generator)
    return chosen


def logprobs_of(logits: Tensor, tokens: Sequence[int], count: int) -> list[TokenLogprobs]:
    """What the raw logits (tokens, vocabulary) say of `tokens` and of the `count` likeliest."""
    logprobs = logits.log_softmax(dim=-1)
    own = logprobs.gather(1, torch.tensor(tokens)[:, None])[:, 0].tolist()
    values, indices = logprobs.topk(count, dim=-1)
    tops = [
        tuple(zip(i, v, strict=True))
        for i, v in zip(indices.tolist(), values.tolist(), strict=True)
    ]
    return [TokenLogprobs(*found) for found in zip(tokens, own, tops, strict=True)]


def _draw(logits: Tensor, sampling: Sampling, generator: torch.Generator) -> int:
    """A token by temperature, then nucleus sampling (arXiv:1904.09751)."""
    probabilities, order = (logits / sampling.temperature).softmax(dim=-1).sort(descending=True)
    before = probabilities.cumsum(dim=-1) - probabilities
    probabilities[before >= sampling.top_p] = 0
    probabilities[0] += torch.finfo(probabilities.dtype).tiny
    return int(order[torch.multinomial(probabilities, 1, generator=generator)])
