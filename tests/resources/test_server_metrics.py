"""Replicas that come, go, restart or share a URL while a load test runs."""

from collections.abc import Iterator, Mapping
from typing import ClassVar, Self

import pytest
from pydantic import PrivateAttr

from lora_assets.errors import LoraAssetsError
from lora_assets.resources.fleet import Fleet
from lora_assets.resources.server_metrics import METRICS, ServerMetrics, _Series
from lora_assets.serving.replica import Replica
from lora_assets.serving.replica_folder import shared_folder
from lora_assets.serving.replicas import Replicas

TWO = {"vllm-0 on a": (100.0, 5), "vllm-1 on b": (200.0, 5)}
"""When each replica's process started, and how many requests it has had."""


class Scraped(Replica):
    """A replica that answers each look at its metrics with the next text."""

    texts: Iterator[str]

    def metrics(self) -> str:
        return next(self.texts)


def text(started: float | None, requests: int) -> str:
    lines = [] if started is None else [f"process_start_time_seconds {started}"]
    for metric in METRICS:
        lines += [f"# TYPE {metric} histogram", f'{metric}_bucket{{le="1"}} {requests}']
        lines += [f'{metric}_bucket{{le="+Inf"}} {requests}', f"{metric}_count {requests}"]
    return "\n".join([*lines, ""])


Looks = Mapping[str, tuple[float | None, int]]


class Scene(Fleet):
    """A fleet in which each discovery finds what is set out in `pods` by then."""

    pods: ClassVar[dict[str, list[tuple[float | None, int]]]] = {}

    def become(self, looks: Looks) -> Self:
        self.pods.clear()
        self.pods.update({name: [look, look] for name, look in looks.items()})
        return self

    def discover(self) -> Replicas:
        members = []
        for name, looks in self.pods.items():
            replica = Scraped("http://10.0.0.1", "", 1.0, shared_folder("/"), name)
            object.__setattr__(replica, "texts", iter([text(*look) for look in looks]))
            members.append(replica)
        return Replicas(tuple(members), "", 32, "")


@pytest.fixture
def fleet() -> Scene:
    return Scene(vllm_url="http://all", adapters_dir="/")


def measured(fleet: Scene, begin: Looks, end: Looks) -> list[int]:
    window = ServerMetrics().begin(fleet.become(begin))
    return [each.requests for each in ServerMetrics().end(fleet.become(end), window)]


def test_replicas_are_paired_by_name_in_whatever_order_they_are_found(fleet: Scene) -> None:
    end = {"vllm-1 on b": (200.0, 9), "vllm-0 on a": (100.0, 12)}
    assert measured(fleet, TWO, end) == [11, 11]


def test_servers_that_do_not_say_when_they_started_are_counted_all_the_same(fleet: Scene) -> None:
    assert measured(fleet, {"vllm-0": (None, 1)}, {"vllm-0": (None, 4)}) == [3, 3]


@pytest.mark.parametrize(
    ("end", "happened"),
    [
        ({**TWO, "vllm-2 on c": (300.0, 0)}, "vllm-2 on c joined"),
        ({"vllm-0 on a": TWO["vllm-0 on a"]}, "vllm-1 on b left"),
        ({**TWO, "vllm-1 on b": (250.0, 9)}, "vllm-1 on b was restarted"),
        (
            {"vllm-0 on a": (101.0, 9), "vllm-9 on b": (300.0, 9)},
            "vllm-0 on a was restarted, vllm-1 on b left, vllm-9 on b joined",
        ),
    ],
)
def test_what_happened_to_a_replica_in_the_middle_is_one_line(
    fleet: Scene, end: Looks, happened: str
) -> None:
    told = f"^{happened} during the load test.*run the load test again"
    with pytest.raises(LoraAssetsError, match=told) as caught:
        measured(fleet, TWO, end)
    assert "\n" not in str(caught.value)


def test_two_servers_behind_one_url_are_not_taken_for_a_restart(fleet: Scene) -> None:
    with pytest.raises(LoraAssetsError, match="Several servers answer at vllm-0 on a"):
        measured(fleet, TWO, {**TWO, "vllm-0 on a": (50.0, 9)})
    fleet.pods["vllm-0 on a"] = [(100.0, 5), (200.0, 5)]
    with pytest.raises(LoraAssetsError, match=r"Several servers .* VLLM_REPLICAS"):
        ServerMetrics().begin(fleet)


class Prometheus(ServerMetrics):
    """One in which the fleet answered 100 requests meanwhile, and other teams' servers 5,000."""

    own: str

    def _query(self, query: str, at: float) -> list[_Series]:
        if query.startswith("min(timestamp"):
            return [_Series(metric={}, value=(at, at + 1))]
        if query.startswith("sum(resets"):
            return [_Series(metric={}, value=(at, 0))]
        self._asked.append(query)
        requests = (100 if self.own in query else 5100) * (len(self._asked) % 2 == 0)
        # Of two releases of a client one writes 1 and the other one 1.0.
        parts = {"1": requests // 2, "1.0": requests - requests // 2, "+Inf": requests}
        return [_Series(metric={"le": le}, value=(at, count)) for le, count in parts.items()]

    _asked: list[str] = PrivateAttr(default_factory=list)


@pytest.mark.parametrize(
    ("selector", "own"), [("", 'pod=~"vllm-0|vllm-1"'), ('job="ours"', 'job="ours"')]
)
def test_prometheus_is_asked_for_the_series_of_the_fleet_alone(
    fleet: Scene, selector: str, own: str
) -> None:
    server = Prometheus(prometheus_url="http://all", selector=selector, own=own)
    window = server.begin(fleet.become(TWO))
    found = server.end(fleet.become(TWO), window)
    assert [(each.requests, each.p95_high) for each in found] == [(100, 1)] * len(METRICS)
