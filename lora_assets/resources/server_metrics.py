"""The servers' own latency histograms over the window of a load test."""

from time import monotonic, sleep, time
from typing import Any, Literal

import dagster as dg
import httpx
from pydantic import BaseModel, ValidationError

from lora_assets.errors import LoraAssetsError
from lora_assets.load_test.server_histograms import locate_p95, server_histogram
from lora_assets.records import Record
from lora_assets.records.load import ServerHistogram
from lora_assets.resources.fleet import Fleet

METRICS = ("vllm:e2e_request_latency_seconds", "vllm:time_to_first_token_seconds")
SCRAPE_WAIT = 120.0
"""Seconds within which Prometheus must have scraped every replica, before and after the window."""


class _Series(BaseModel):
    metric: dict[str, str]
    value: tuple[float, str]


class _Vector(BaseModel):
    result: list[_Series]


class _Reply(BaseModel):
    status: Literal["success"]
    data: _Vector


class Window(Record):
    """The beginning of a window: its time (Unix seconds), and each replica's metrics by then.

    Prometheus has scraped every replica between `opened` and `began`.
    """

    opened: float
    began: float
    texts: tuple[str, ...]


class ServerMetrics(dg.ConfigurableResource[Any]):
    """Reads the histograms from Prometheus; from each replica where there is none."""

    prometheus_url: str = ""
    timeout: float = 30.0

    def begin(self, fleet: Fleet) -> Window:
        """Open a window; call before the first request."""
        opened = time()
        if self.prometheus_url:
            return Window(opened=opened, began=self._wait_for_scrape(opened), texts=())
        texts = tuple(replica.metrics() for replica in fleet.replicas)
        return Window(opened=opened, began=time(), texts=texts)

    def end(self, fleet: Fleet, window: Window) -> tuple[ServerHistogram, ...]:
        """Close the window: where each histogram's P95 lies. A missing metric raises."""
        # Also beside Prometheus: a replica that died is told of here, and not waited for.
        texts = [replica.metrics() for replica in fleet.replicas]
        if self.prometheus_url:
            scraped = self._wait_for_scrape(time())
            return tuple(self._from_prometheus(metric, window, scraped) for metric in METRICS)
        pairs = list(zip(window.texts, texts, strict=True))
        return tuple(server_histogram(metric, pairs) for metric in METRICS)

    def _from_prometheus(self, metric: str, window: Window, ended: float) -> ServerHistogram:
        lasted = f"{round((ended - window.opened) * 1000)}ms"
        query = f'sum(resets({{__name__="{metric}_bucket",le="+Inf"}}[{lasted}]))'
        if any(float(series.value[1]) > 0 for series in self._query(query, ended)):
            raise LoraAssetsError(
                f"{metric} went back during the load test: a vLLM replica was restarted",
                "Look into the replicas' logs, and run the load test again.",
            )
        before, after = self._counts(metric, window.began), self._counts(metric, ended)
        return locate_p95(
            metric, {bound: count - before.get(bound, 0.0) for bound, count in after.items()}
        )

    def _counts(self, metric: str, at: float) -> dict[float, float]:
        series = self._query(f'sum by (le) ({{__name__="{metric}_bucket"}})', at)
        return {float(s.metric["le"]): float(s.value[1]) for s in series}

    def _wait_for_scrape(self, moment: float) -> float:
        """The time at which every replica's histogram has a sample from after `moment`."""
        name = f"{METRICS[0]}_bucket"
        deadline = monotonic() + SCRAPE_WAIT
        while monotonic() < deadline:
            now = time()
            oldest = self._query(f'min(timestamp({{__name__="{name}",le="+Inf"}}))', now)
            if oldest and float(oldest[0].value[1]) > moment:
                return now
            sleep(1)
        raise LoraAssetsError(
            f"Prometheus at {self.prometheus_url} has had no new {name} for {SCRAPE_WAIT:.0f} s",
            "Check that it scrapes every vLLM replica (ServiceMonitor).",
        )

    def _query(self, query: str, at: float) -> list[_Series]:
        url = f"{self.prometheus_url.rstrip('/')}/api/v1/query"
        try:
            reply = httpx.get(url, params={"query": query, "time": at}, timeout=self.timeout)
            reply.raise_for_status()
            return _Reply.model_validate_json(reply.content).data.result
        except (httpx.HTTPError, httpx.InvalidURL, ValidationError) as error:
            reason = (str(error) or type(error).__name__).splitlines()[0]
            raise LoraAssetsError(
                f"Prometheus at {self.prometheus_url} failed ({reason})",
                "Check that it runs and correct --prometheus-url.",
            ) from None
