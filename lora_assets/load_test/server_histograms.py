"""The server's latency histograms over a window, from its /metrics before and after."""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence

from prometheus_client.parser import text_string_to_metric_families

from lora_assets.errors import LoraAssetsError
from lora_assets.load_test.summary import nearest_rank
from lora_assets.records.load import ServerHistogram

Labels = frozenset[tuple[str, str]]
Buckets = Mapping[float, float]


def server_histogram(metric: str, replicas: Sequence[tuple[str, str]]) -> ServerHistogram:
    """Return in which bucket the P95 of the window falls, over all replicas and labels.

    `replicas` has the text of each one's /metrics before and after the window (Prometheus
    exposition format). Raise LoraAssetsError when a text can't be read, the metric is
    missing, a counter went back (the server was restarted), the buckets of two replicas,
    labels or readings differ, or no request was counted.
    """
    total: dict[float, float] = defaultdict(float)
    for before, after in replicas:
        added = _window(metric, before, after)
        if total and total.keys() != added.keys():
            raise _unusable(metric, "its buckets differ between replicas")
        for bound, count in added.items():
            total[bound] += count
    return locate_p95(metric, total)


def locate_p95(metric: str, buckets: Buckets) -> ServerHistogram:
    """Return the P95's bucket in a histogram: counts of the window at or below each upper bound.

    Nearest rank, as for the clients' samples. Seconds, so the first bucket begins at 0.
    """
    bounds = sorted(buckets)
    if not bounds or bounds[-1] != math.inf:
        raise _unusable(metric, "it has no +Inf bucket")
    counts = [buckets[bound] for bound in bounds]
    if not all(map(math.isfinite, counts)) or counts[0] < 0 or counts != sorted(counts):
        raise _unusable(metric, "its buckets are not cumulative counts")
    requests = round(counts[-1])
    if requests < 1:
        raise _unusable(metric, "the server counted no request in the window")
    rank = nearest_rank(requests, 95)
    position = next(index for index, count in enumerate(counts) if round(count) >= rank)
    return ServerHistogram(
        metric=metric,
        requests=requests,
        p95_low=bounds[position - 1] if position else 0.0,
        p95_high=bounds[position],
    )


def _window(metric: str, before: str, after: str) -> dict[float, float]:
    """Return the counts per bound that one replica added between two readings, over all labels."""
    old, old_births = _series(metric, before)
    new, new_births = _series(metric, after)
    if len({frozenset(series) for series in (*old.values(), *new.values())}) > 1:
        raise _unusable(metric, "its buckets differ between readings or labels")
    added: dict[float, float] = defaultdict(float)
    for labels, was in old.items():
        now = new.get(labels)
        reborn = old_births.get(labels) != new_births.get(labels)
        if now is None or reborn or any(now[bound] < was[bound] for bound in was):
            raise _unusable(metric, "its counters went back, so the server was restarted")
    for labels, now in new.items():
        for bound, count in now.items():
            added[bound] += count - old.get(labels, {}).get(bound, 0.0)
    return added


def _series(metric: str, text: str) -> tuple[dict[Labels, dict[float, float]], dict[Labels, float]]:
    """Return each label set's cumulative buckets, and its time of creation where it is given."""
    buckets: dict[Labels, dict[float, float]] = defaultdict(dict)
    births: dict[Labels, float] = {}
    reported = False
    try:
        for family in text_string_to_metric_families(text):
            # A server that has had no request yet names the metric and gives no sample.
            reported = reported or family.name == metric
            for sample in family.samples:
                labels = frozenset(
                    (name, value) for name, value in sample.labels.items() if name != "le"
                )
                if sample.name == f"{metric}_bucket":
                    buckets[labels][float(sample.labels["le"])] = float(sample.value)
                elif sample.name == f"{metric}_created":
                    births[labels] = float(sample.value)
    except (ValueError, KeyError):
        raise _unusable(metric, "the server's metrics can't be read") from None
    if not reported:
        raise _unusable(metric, "the server does not report it")
    return dict(buckets), births


def _unusable(metric: str, reason: str) -> LoraAssetsError:
    return LoraAssetsError(
        f"The server's histogram {metric} is of no use: {reason}",
        "Check the server and run the load test again.",
    )
