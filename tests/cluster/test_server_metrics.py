"""The server's histograms as a real Prometheus has them."""

import pytest

from lora_assets.errors import LoraAssetsError
from lora_assets.resources.server_metrics import METRICS, ServerMetrics
from lora_assets.settings import EMBEDDED_BASE_NAME
from tests.support.cluster import Cluster

pytestmark = pytest.mark.e2e


def ask(cluster: Cluster, times: int) -> None:
    for _ in range(times):
        cluster.resources.fleet.discover().members[0].complete(EMBEDDED_BASE_NAME, "a", 4)


def test_the_window_counts_its_own_requests_and_agrees_with_the_server_itself(
    cluster: Cluster,
) -> None:
    fleet = cluster.resources.fleet
    read = {"prometheus": cluster.resources.server_metrics, "server": ServerMetrics()}
    ask(cluster, 3)
    windows = {name: metrics.begin(fleet) for name, metrics in read.items()}
    ask(cluster, 7)
    found = {name: metrics.end(fleet, windows[name]) for name, metrics in read.items()}
    assert [histogram.metric for histogram in found["prometheus"]] == list(METRICS)
    assert [histogram.requests for histogram in found["prometheus"]] == [7, 7]
    assert found["prometheus"] == found["server"]


def test_a_server_that_was_restarted_in_the_window_is_told(cluster: Cluster) -> None:
    metrics, fleet = cluster.resources.server_metrics, cluster.resources.fleet
    ask(cluster, 5)
    window = metrics.begin(fleet)
    with cluster.vllm.killed():
        pass
    ask(cluster, 3)
    with pytest.raises(LoraAssetsError, match="was restarted"):
        metrics.end(fleet, window)
