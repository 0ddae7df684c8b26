"""What a load test measures. All times are seconds."""

from collections.abc import Sequence
from typing import Literal

from lora_assets.records import Measurement, Record


class RequestSample(Record):
    """One request as its client saw it.

    `started` is seconds since the test began. `latency` is the time to the last byte and
    `ttft` to the first token; both are None when the request failed, and `error` says how.
    """

    started: float
    latency: float | None
    ttft: float | None
    output_tokens: int
    error: str | None


class LoadSamples(Record):
    """Every request of a load test; `live` if it was tested alternately with the candidate."""

    candidate: tuple[RequestSample, ...]
    live: tuple[RequestSample, ...] | None


class Percentiles(Record):
    """Exact percentiles over the samples (nearest rank: a value that was measured)."""

    p50: float
    p95: float
    p99: float


class LoadConditions(Record):
    """Under what a load test was made; `prompts` is a digest of what was asked how often."""

    concurrency: int
    max_tokens: int
    prompts: str
    replicas: int
    server: str

    def differences(self, other: "LoadConditions") -> Sequence[str]:
        """Return what is not as in `other`, by name."""
        return [name for name, value in self if getattr(other, name) != value]


class LoadMetrics(Record):
    """One adapter under load; percentiles are over the requests that succeeded.

    `throughput` counts successful requests per second of the test's duration. The
    percentiles are None when no request succeeded, `conditions` in tests of earlier releases.
    """

    requests: int
    failures: int
    duration: float
    latency: Percentiles | None
    ttft: Percentiles | None
    throughput: float
    success_rate: float
    conditions: LoadConditions | None = None


class ServerHistogram(Record):
    """The server's own view of the same window, from its histogram's buckets.

    The true 95th percentile lies in (p95_low, p95_high]; p95_high is infinite in the
    last bucket.
    """

    metric: str
    requests: int
    p95_low: float
    p95_high: float


class PerfMetrics(Measurement):
    """What the `perf_metrics` asset stands for.

    `baseline` is None on a first deployment. It was `measured` in the same run, alternately
    with the candidate, or `stored` by the live adapter's own last passed test.
    `contradictions` say where the server's histograms contradict what the clients measured, or
    that the clients were too late to measure.
    """

    candidate: LoadMetrics
    baseline: LoadMetrics | None
    baseline_source: Literal["none", "measured", "stored"]
    server: tuple[ServerHistogram, ...]
    contradictions: tuple[str, ...]
