"""What a variant's process measures."""

import resource
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import NamedTuple

import torch

from lora_assets.records import Record


class Moment(NamedTuple):
    """After an update: the tokens (no padding) trained so far, and the clock's seconds."""

    tokens: float
    seconds: float


class Measured(Record):
    """What a variant's process found; `own_rate` is the engine's own figure."""

    tokens_per_second: float
    updates: int
    peak_gb: float
    reserved_gb: float
    losses: tuple[float, ...]
    versions: Mapping[str, str]
    own_rate: float | None = None
    notes: tuple[str, ...] = ()


def steady_rate(moments: Sequence[Moment]) -> float:
    """Return the tokens per second after the third update, or after the first of fewer than 5."""
    if len(moments) < 2:
        raise ValueError(f"{len(moments)} updates are too few to measure a rate: use more rows")
    first, last = moments[2 if len(moments) > 4 else 0], moments[-1]
    return (last.tokens - first.tokens) / (last.seconds - first.seconds)


def measured(rate: float, updates: int, losses: Sequence[float], *packages: str) -> Measured:
    """Return a variant's figures, with the peak memory of this process."""
    cuda = torch.cuda.is_available()
    resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return Measured(
        tokens_per_second=rate,
        updates=updates,
        peak_gb=(torch.cuda.max_memory_allocated() if cuda else resident) / 1e9,
        reserved_gb=(torch.cuda.max_memory_reserved() if cuda else resident) / 1e9,
        losses=tuple(losses[:3]),
        versions={package: version(package) for package in packages},
    )
