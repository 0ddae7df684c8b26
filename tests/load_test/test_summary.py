import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lora_assets.errors import LoraAssetsError
from lora_assets.load_test.summary import (
    E2E_LATENCY,
    TIME_TO_FIRST_TOKEN,
    contradictions,
    summarise,
)
from lora_assets.records.load import RequestSample, ServerHistogram

FAILED = RequestSample(started=0, latency=None, ttft=None, output_tokens=0, error="503")
BOUNDS = (0.5, 1.0, 2.5, 5.0, math.inf)


def _ok(latency: float) -> RequestSample:
    return RequestSample(started=0, latency=latency, ttft=latency / 2, output_tokens=1, error=None)


def _histogram(server_times: list[float]) -> ServerHistogram:
    p95 = sorted(server_times)[math.ceil(0.95 * len(server_times)) - 1]
    place = next(index for index, bound in enumerate(BOUNDS) if p95 <= bound)
    return ServerHistogram(
        metric=E2E_LATENCY,
        requests=len(server_times),
        p95_low=BOUNDS[place - 1] if place else 0.0,
        p95_high=BOUNDS[place],
    )


def test_percentiles_are_values_that_were_measured() -> None:
    metrics = summarise([_ok(float(n)) for n in range(100, 0, -1)], 50.0)
    assert metrics.latency is not None
    assert metrics.ttft is not None
    assert tuple(metrics.latency.model_dump().values()) == (50, 95, 99)
    assert (metrics.ttft.p95, metrics.throughput) == (47.5, 2.0)


def test_failed_requests_count_against_success_and_throughput_and_have_no_latency() -> None:
    metrics = summarise([_ok(1.0), FAILED, FAILED, _ok(3.0)], 2.0)
    assert (metrics.requests, metrics.failures, metrics.success_rate) == (4, 2, 0.5)
    assert metrics.throughput == 1.0
    assert metrics.latency is not None
    assert metrics.latency.p99 == 3.0


def test_where_every_request_failed_there_are_no_percentiles() -> None:
    metrics = summarise([FAILED], 1.0)
    assert (metrics.latency, metrics.ttft, metrics.success_rate) == (None, None, 0.0)


def test_a_test_that_measured_nothing_is_an_error() -> None:
    with pytest.raises(LoraAssetsError, match="made no request"):
        summarise([], 1.0)


@given(
    tested=st.lists(st.tuples(st.floats(0.01, 9), st.floats(0, 3)), min_size=1, max_size=60),
    foreign=st.lists(st.floats(0.01, 9), max_size=20),
    failed=st.integers(0, 5),
)
def test_a_true_histogram_is_never_contradicted_by_slower_clients_or_other_traffic(
    tested: list[tuple[float, float]], foreign: list[float], failed: int
) -> None:
    samples = [_ok(server + network) for server, network in tested] + [FAILED] * failed
    server = _histogram([time for time, _ in tested] + foreign)
    assert contradictions(samples, [server]) == ()


def test_clients_that_were_quicker_than_the_server_says_contradict_it() -> None:
    server = ServerHistogram(metric=E2E_LATENCY, requests=100, p95_low=2.5, p95_high=5.0)
    assert contradictions([_ok(2.6)] * 100, [server]) == ()
    (fault,) = contradictions([_ok(2.0)] * 100, [server])
    assert "more than 2.5 s" in fault


def test_a_server_that_counted_fewer_requests_than_were_answered_is_contradicted() -> None:
    server = ServerHistogram(metric=TIME_TO_FIRST_TOKEN, requests=9, p95_low=0, p95_high=5.0)
    assert contradictions([_ok(1.0)] * 9, [server]) == ()
    (fault,) = contradictions([_ok(1.0)] * 10, [server])
    assert "counted 9 requests, its clients 10" in fault
