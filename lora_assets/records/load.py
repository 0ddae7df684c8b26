"""What a load test measures. All times are seconds."""

from collections.abc import Sequence
from typing import Literal

from lora_assets.records import Measurement, Record
from lora_assets.records.looks import Looks


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


Measure = Literal["p95_latency", "p95_ttft", "throughput"]


class Ratio(Record):
    """One measure of the candidate over that of live: the geometric mean over pairs of blocks.

    `error` is the standard error of its logarithm.
    """

    measure: Measure
    value: float
    error: float


class LatencyChange(Record):
    """Why the candidate's mean latency differs from that of live, in seconds that add up to it.

    `first_token` is how much later the first token comes, `tokens` what the tokens cost that there
    are more of (at live's speed), `speed` how much longer the candidate's take.
    """

    first_token: float
    tokens: float
    speed: float

    def __str__(self) -> str:
        total = self.first_token + self.tokens + self.speed
        return (
            f"mean latency {total:+.3f} s against live: first token {self.first_token:+.3f}, "
            f"more tokens {self.tokens:+.3f}, slower tokens {self.speed:+.3f}"
        )


class PerfMetrics(Measurement):
    """What the `perf_metrics` asset stands for.

    `baseline` is None on a first deployment. It was `measured` in the same run, alternately
    with the candidate, or `stored` by the live adapter's own last passed test.
    `contradictions` say where the server's histograms contradict what the clients measured, or
    that the clients were too late to measure. `ratios`, `looks` (at blocks) and `change` compare
    with a live that was measured; `drift` says where it is not what its own last test was.
    """

    candidate: LoadMetrics
    baseline: LoadMetrics | None
    baseline_source: Literal["none", "measured", "stored"]
    server: tuple[ServerHistogram, ...]
    contradictions: tuple[str, ...]
    ratios: tuple[Ratio, ...] = ()
    looks: Looks | None = None
    change: LatencyChange | None = None
    drift: tuple[str, ...] = ()
