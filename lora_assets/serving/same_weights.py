"""Do two serving names answer with the same weights?"""

from collections.abc import Sequence

LOGPROB_TOLERANCE = 0.05
"""Nats per token. The same weights in another batch differ by rounding (below 0.02 in bf16);
the answers of two adapters differ by tenths to whole nats."""


def same_logprobs(meant: Sequence[float], found: Sequence[float]) -> bool:
    """True when two greedy answers have as many tokens and the same log-probabilities (nats)."""
    return len(meant) == len(found) and all(
        abs(a - b) <= LOGPROB_TOLERANCE for a, b in zip(meant, found, strict=True)
    )
