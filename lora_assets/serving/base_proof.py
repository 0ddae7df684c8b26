"""Is the base model that a server serves the one that an adapter was trained on?"""

from collections.abc import Sequence
from statistics import fmean

from lora_assets.records import short
from lora_assets.records.base_model import Base, NextToken

_DIGEST_LENGTH = 64

MIN_EQUAL = 0.75
"""Share of next tokens that are equal. Measured on vLLM 0.32: the same weights 24 of 24, weights
that were trained on 13 of 24, others 0 of 24."""

TOLERANCE = 0.25
"""Nats per token, on average. Measured: bf16 beside fp32 0.017, NF4 beside fp32 0.144."""


def is_told(trained: Base, told: str) -> bool:
    """Return whether the server's own word decides: two digests, or one commit twice."""
    return trained.identity == told or len(trained.identity) == len(told) == _DIGEST_LENGTH


def other_files(trained: Base, told: str) -> str | None:
    """Return how the base that a server tells of differs from the trained one; None if it does not.

    It decides only where `is_told`: a hub's next commit may hold the same weights.
    """
    if trained.identity == told:
        return None
    return f"its files have digest {short(told)}, those trained on {short(trained.identity)}"


def other_answers(trained: Sequence[NextToken], served: Sequence[NextToken]) -> str | None:
    """Return how the served base's next tokens differ from the trained one's; None if alike."""
    pairs = list(zip(trained, served, strict=True))
    equal = sum(one.text == other.text for one, other in pairs)
    apart = fmean(abs(one.logprob - other.logprob) for one, other in pairs)
    # Not-a-number is apart, too.
    if equal >= MIN_EQUAL * len(pairs) and apart <= TOLERANCE:
        return None
    return (
        f"{equal} of {len(pairs)} next tokens are the same (at least {MIN_EQUAL:.0%}), their "
        f"log-probabilities {apart:.3g} apart (at most {TOLERANCE})"
    )
