"""The servers' own latency histograms over the window of a load test."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from time import monotonic, sleep, time
from typing import Any, Literal

import dagster as dg
import httpx
from prometheus_client.parser import text_string_to_metric_families
from pydantic import AliasPath, BaseModel, Field, ValidationError

from lora_assets.errors import LoraAssetsError, validation_line
from lora_assets.load_test.server_histograms import locate_p95, server_histogram
from lora_assets.load_test.summary import CLIENT_TIMES
from lora_assets.records import Record
from lora_assets.records.load import ServerHistogram
from lora_assets.resources.fleet import Fleet
from lora_assets.serving.bounded_client import request
from lora_assets.serving.replica import Replica

METRICS = tuple(CLIENT_TIMES)
SCRAPE_WAIT = 120.0
"""Seconds within which Prometheus must have scraped every replica, before and after the window."""


class _Series(BaseModel):
    metric: dict[str, str]
    value: tuple[float, float]


class _Reply(BaseModel):
    status: Literal["success"]
    result: list[_Series] = Field(validation_alias=AliasPath("data", "result"))


class Window(Record):
    """The beginning of a window: its time (Unix seconds), and each replica's metrics by name.

    Prometheus has scraped every replica between `opened` and `began`.
    """

    opened: float
    began: float
    texts: Mapping[str, str]


class ServerMetrics(dg.ConfigurableResource[Any]):
    """Reads the histograms from Prometheus; from each replica where there is none.

    Others' vLLM may be in that Prometheus: the fleet's own series have the labels of `selector`,
    or, where it is empty, the names of its pods. A fleet known by URLs has all of them.
    """

    prometheus_url: str = ""
    selector: str = ""
    timeout: float = 30.0

    def begin(self, fleet: Fleet) -> Window:
        """Open a window; call before the first request."""
        opened = time()
        texts = _texts(fleet)
        own = self.selector or _of_pods(texts)
        began = self._wait_for_scrape(opened, own) if self.prometheus_url else time()
        return Window(opened=opened, began=began, texts=texts)

    def end(self, fleet: Fleet, window: Window) -> tuple[ServerHistogram, ...]:
        """Close the window and return where each histogram's P95 lies.

        Raise LoraAssetsError where a replica joined, left or was restarted meanwhile, and where
        a metric is missing.
        """
        # Also beside Prometheus: a replica that died is reported here, and not waited for.
        texts = _texts(fleet)
        _require_same_servers(window.texts, texts)
        if self.prometheus_url:
            own = self.selector or _of_pods(texts)
            scraped = self._wait_for_scrape(time(), own)
            return tuple(self._from_prometheus(metric, own, window, scraped) for metric in METRICS)
        pairs = [(window.texts[name], text) for name, text in texts.items()]
        return tuple(server_histogram(metric, pairs) for metric in METRICS)

    def _from_prometheus(
        self, metric: str, own: str, window: Window, ended: float
    ) -> ServerHistogram:
        lasted = f"{round((ended - window.opened) * 1000)}ms"
        query = f'sum(resets({{__name__="{metric}_bucket",le="+Inf",{own}}}[{lasted}]))'
        if any(series.value[1] > 0 for series in self._query(query, ended)):
            raise LoraAssetsError(
                f"{metric} went back during the load test: a vLLM replica was restarted",
                "Look into the replicas' logs, and run the load test again.",
            )
        before, after = (self._counts(metric, own, at) for at in (window.began, ended))
        return locate_p95(
            metric, {bound: count - before.get(bound, 0.0) for bound, count in after.items()}
        )

    def _counts(self, metric: str, own: str, at: float) -> dict[float, float]:
        series = self._query(f'sum by (le) ({{__name__="{metric}_bucket",{own}}})', at)
        counts: dict[float, float] = defaultdict(float)
        for each in series:
            # Of two releases of a client one may write 1 and the other one 1.0.
            counts[float(each.metric["le"])] += each.value[1]
        return counts

    def _wait_for_scrape(self, moment: float, own: str) -> float:
        """Return the time at which every replica's histogram has a sample from after `moment`."""
        name = f"{METRICS[0]}_bucket"
        deadline = monotonic() + SCRAPE_WAIT
        while monotonic() < deadline:
            now = time()
            oldest = self._query(f'min(timestamp({{__name__="{name}",le="+Inf",{own}}}))', now)
            if oldest and oldest[0].value[1] > moment:
                return now
            sleep(1)
        raise LoraAssetsError(
            f"Prometheus at {self.prometheus_url} has had no new {name}{{{own}}} for "
            f"{SCRAPE_WAIT:.0f} s",
            "Check that it scrapes every vLLM replica (ServiceMonitor), and PROMETHEUS_SELECTOR.",
        )

    def _query(self, query: str, at: float) -> list[_Series]:
        url = f"{self.prometheus_url.rstrip('/')}/api/v1/query"
        try:
            reply = request("GET", url, self.timeout, params={"query": query, "time": at})
            reply.raise_for_status()
            return _Reply.model_validate_json(reply.content).result
        except (httpx.HTTPError, httpx.InvalidURL, ValidationError) as error:
            reason = (str(error) or type(error).__name__).partition("\n")[0]
            if isinstance(error, ValidationError):
                reason = validation_line(error)
            raise LoraAssetsError(
                f"Prometheus at {self.prometheus_url} failed ({reason})",
                "Check that it runs and correct --prometheus-url.",
            ) from None


def _of_pods(names: Iterable[str]) -> str:
    """Return the selector of the pods that replicas of these names are; "" where they are URLs."""
    pods = [name.partition(" on ")[0] for name in names if "://" not in name]
    return f'pod=~"{"|".join(pods)}"' if pods else ""


def metrics_of(replica: Replica) -> str:
    """Return a replica's metrics; refuse a URL that several servers answer at."""
    # Twice, over two connections: a load balancer gives each to another server.
    first, text = replica.metrics(), replica.metrics()
    if _started(replica.name, first) != _started(replica.name, text):
        raise _several_servers(replica.name)
    return text


def _texts(fleet: Fleet) -> Mapping[str, str]:
    return {replica.name: metrics_of(replica) for replica in fleet.discover().members}


def _require_same_servers(before: Mapping[str, str], after: Mapping[str, str]) -> None:
    events = [f"{name} left" for name in before.keys() - after.keys()]
    events += [f"{name} joined" for name in after.keys() - before.keys()]
    for name in before.keys() & after.keys():
        then, now = _started(name, before[name]), _started(name, after[name])
        if then is None or now is None or then == now:
            continue
        if now < then:
            raise _several_servers(name)
        events.append(f"{name} was restarted")
    if events:
        raise LoraAssetsError(
            f"{', '.join(sorted(events))} during the load test",
            "Look into the replicas' logs, and run the load test again.",
        )


def _started(name: str, text: str) -> float | None:
    """Return when the server started, by its clock; None where its metrics don't say it.

    prometheus_client leaves out the process's own where several processes share the metrics; then
    it is the time at which the oldest metric was made.
    """
    try:
        samples = [
            sample for family in text_string_to_metric_families(text) for sample in family.samples
        ]
    except ValueError:
        raise LoraAssetsError(
            f"The metrics of {name} can't be read", "Check that this is a vLLM server."
        ) from None
    for sample in samples:
        if sample.name == "process_start_time_seconds":
            return float(sample.value)
    made = [float(sample.value) for sample in samples if sample.name.endswith("_created")]
    return min(made, default=None)


def _several_servers(name: str) -> LoraAssetsError:
    return LoraAssetsError(
        f"Several servers answer at {name}: its metrics come from different processes",
        "Name each replica by its own URL in VLLM_REPLICAS, not that of a load balancer.",
    )
