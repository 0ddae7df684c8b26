import math

import pytest
from prometheus_client import CollectorRegistry, Histogram, generate_latest

from lora_assets.errors import LoraAssetsError
from lora_assets.load_test.server_histograms import locate_p95, server_histogram
from lora_assets.load_test.summary import E2E_LATENCY


class Replica:
    """One server's histogram, observed and rendered by the Prometheus client itself."""

    def __init__(self, bounds: tuple[float, ...] = (0.5, 1.0, 2.5, 5.0)) -> None:
        self._registry = CollectorRegistry()
        self._histogram = Histogram(
            E2E_LATENCY, "test", ["finished"], buckets=bounds, registry=self._registry
        )

    def observe(self, *times: float, finished: str = "stop") -> str:
        for time in times:
            self._histogram.labels(finished).observe(time)
        return self.metrics()

    def metrics(self) -> str:
        return generate_latest(self._registry).decode()


def test_only_what_the_window_added_counts_over_all_labels_and_replicas() -> None:
    one, two = Replica(), Replica()
    before = (one.observe(*[9.0] * 50), two.metrics())
    one.observe(*[0.4] * 90)
    after = (one.observe(*[0.4] * 4, finished="length"), two.observe(*[2.0] * 6))
    found = server_histogram(E2E_LATENCY, list(zip(before, after, strict=True)))
    assert (found.requests, found.p95_low, found.p95_high) == (100, 1.0, 2.5)


@pytest.mark.parametrize(
    ("times", "low", "high"),
    [([0.1], 0.0, 0.5), ([9.0], 5.0, math.inf), ([0.4] * 95 + [9.0] * 5, 0.0, 0.5)],
)
def test_the_p95_is_found_in_the_first_the_last_and_the_right_bucket(
    times: list[float], low: float, high: float
) -> None:
    replica = Replica()
    before = replica.metrics()
    found = server_histogram(E2E_LATENCY, [(before, replica.observe(*times))])
    assert (found.p95_low, found.p95_high) == (low, high)


def test_a_restarted_server_is_named_even_when_its_counters_have_caught_up() -> None:
    before = Replica().observe(0.4)
    for after in (Replica().metrics(), Replica().observe(0.4, 0.4, 0.4)):
        with pytest.raises(LoraAssetsError, match="restarted"):
            server_histogram(E2E_LATENCY, [(before, after)])


def test_a_metric_that_is_missing_unreadable_or_idle_is_named() -> None:
    replica = Replica()
    text = replica.observe(0.4)
    for before, after, reason in (
        (text, "", "does not report it"),
        ("", text, "does not report it"),
        (text, "<html>", "can't be read"),
        (text, text, "no request"),
        (text, Replica((1.0, 2.0)).observe(0.4), "buckets differ"),
        (Replica().metrics(), text[: text.index('le="2.5"')] + 'le="2.5"} 1\n', r"no \+Inf"),
    ):
        with pytest.raises(LoraAssetsError, match=reason):
            server_histogram(E2E_LATENCY, [(before, after)])


@pytest.mark.parametrize("counts", [(3.0, 2.0), (math.nan, 2.0), (-1.0, 2.0)])
def test_buckets_that_are_no_cumulative_counts_are_named(counts: tuple[float, float]) -> None:
    with pytest.raises(LoraAssetsError, match="cumulative"):
        locate_p95(E2E_LATENCY, {1.0: counts[0], math.inf: counts[1]})
