"""What the samples of a load test add up to, and whether the server's own view denies it."""

from collections.abc import Callable, Mapping, Sequence

from lora_assets.errors import LoraAssetsError
from lora_assets.records.load import LoadMetrics, Percentiles, RequestSample, ServerHistogram

E2E_LATENCY = "vllm:e2e_request_latency_seconds"
TIME_TO_FIRST_TOKEN = "vllm:time_to_first_token_seconds"

CLIENT_TIMES: Mapping[str, Callable[[RequestSample], float | None]] = {
    E2E_LATENCY: lambda sample: sample.latency,
    TIME_TO_FIRST_TOKEN: lambda sample: sample.ttft,
}
"""The servers' histograms that are read, each with what a client measured of the same."""

CLOCK_TOLERANCE = 0.05
"""Seconds by which a request may look shorter to its client than to the server: the two
read different clocks, and the server's stops when it gets round to its bookkeeping."""


def nearest_rank(count: int, percent: int) -> int:
    """Return the smallest 1-based rank with `percent` % of `count` at or below it.

    Nearest-rank definition: ceil(percent / 100 * count), in integers.
    """
    return -(-percent * count // 100)


def summarise(samples: Sequence[RequestSample], duration: float) -> LoadMetrics:
    """Return one adapter's requests as numbers; `duration` is the seconds that it was under load.

    Percentiles are nearest-rank (a value that was measured, no interpolation) over the
    requests that succeeded. Raise LoraAssetsError for no samples.
    """
    if not samples:
        raise LoraAssetsError("The load test made no request", "Run the load test again.")
    answered = [sample for sample in samples if sample.error is None]
    latencies = [sample.latency for sample in answered if sample.latency is not None]
    ttfts = [sample.ttft for sample in answered if sample.ttft is not None]
    return LoadMetrics(
        requests=len(samples),
        failures=len(samples) - len(answered),
        duration=duration,
        latency=_percentiles(latencies),
        ttft=_percentiles(ttfts),
        throughput=len(answered) / duration,
        success_rate=len(answered) / len(samples),
    )


def _percentiles(values: Sequence[float]) -> Percentiles | None:
    if not values:
        return None
    ranked = sorted(values)
    p50, p95, p99 = (ranked[nearest_rank(len(ranked), percent) - 1] for percent in (50, 95, 99))
    return Percentiles(p50=p50, p95=p95, p99=p99)


def contradictions(
    samples: Sequence[RequestSample], server: Sequence[ServerHistogram]
) -> tuple[str, ...]:
    """Return where the server's histograms can't be true of the window that the clients measured.

    `samples` are all requests of the window, every model's: the histograms carry no adapter
    label. A client may see more than the server does (network, queues before the server,
    other traffic in the histogram), so a larger client P95 contradicts nothing. Two things do:

    - the server counted fewer requests than clients got answered: another server was read,
      or one replica is missing;
    - the histogram says that more requests took longer than `p95_low` than there can be:
      those that a client saw take that long, and those that no client of the test counted
      as answered (warm-up, failed, or foreign). Where the server saw exactly the test's
      requests this reads: the client's P95 lies below the server's P95 bucket.
    """
    faults: list[str] = []
    for histogram in server:
        times = map(CLIENT_TIMES[histogram.metric], samples)
        values = [time for time in times if time is not None]
        if histogram.requests < len(values):
            faults.append(
                f"{histogram.metric}: the server counted {histogram.requests} requests,"
                f" its clients {len(values)}"
            )
            continue
        above = histogram.requests - nearest_rank(histogram.requests, 95) + 1
        seen = sum(time > histogram.p95_low - CLOCK_TOLERANCE for time in values)
        if above > seen + histogram.requests - len(values):
            faults.append(
                f"{histogram.metric}: the server says that at least {above} requests took more"
                f" than {histogram.p95_low:g} s, its clients saw {seen}"
            )
    return tuple(faults)
