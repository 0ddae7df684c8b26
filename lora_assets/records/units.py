"""What the numbers of gates, metrics and load tests are measured in."""

_UNITS = {
    "latency": "s",
    "ttft": "s",
    "slowest": "s",
    "throughput": "requests/s",
    "rate": "share",
    "left out": "share",
    "loss": "nats per token",
}


def unit_of(name: str) -> str:
    """Return the unit of a number by its name; empty for a count, a ratio or a perplexity."""
    measure = name.partition(" of ")[0]
    return next((unit for part, unit in _UNITS.items() if part in measure), "")
