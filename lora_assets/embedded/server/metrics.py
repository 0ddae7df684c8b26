"""The server's metrics, under vLLM's names, labels and histogram buckets (vLLM 0.32)."""

from collections.abc import Sequence
from typing import Literal

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

FinishReason = Literal["stop", "length", "abort", "error"]
_REASONS: tuple[FinishReason, ...] = ("stop", "length", "abort", "error")
_REQUEST_LATENCY = (
    *(0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0),
    *(120.0, 240.0, 480.0, 960.0, 1920.0, 7680.0),
)
_TTFT = (
    *(0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0),
    *(7.5, 10.0, 20.0, 40.0, 80.0, 160.0, 640.0, 2560.0),
)
_ITL = (
    *(0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5, 5.0),
    *(7.5, 10.0, 20.0, 40.0, 80.0),
)


class ServerMetrics:
    """One server's counters, in a registry of its own. Durations are seconds."""

    def __init__(self, model_name: str, max_loras: int) -> None:
        registry = self._registry = CollectorRegistry()
        self._max_loras = max_loras
        names = ["model_name", "engine"]
        values = (model_name, "0")

        def histogram(name: str, what: str, buckets: tuple[float, ...]) -> Histogram:
            name, text = f"vllm:{name}_seconds", f"Histogram of {what} in seconds."
            made = Histogram(name, text, names, buckets=buckets, registry=registry)
            return made.labels(*values)

        def gauge(name: str, text: str) -> Gauge:
            return Gauge(f"vllm:{name}", text, names, registry=registry).labels(*values)

        def counter(name: str, text: str) -> Counter:
            return Counter(f"vllm:{name}", text, names, registry=registry).labels(*values)

        self.e2e_latency = histogram("e2e_request_latency", "e2e request latency", _REQUEST_LATENCY)
        self.time_to_first_token = histogram("time_to_first_token", "time to first token", _TTFT)
        self.inter_token_latency = histogram("inter_token_latency", "inter-token latency", _ITL)
        self._running = gauge(
            "num_requests_running", "Number of requests in model execution batches."
        )
        self._waiting = gauge("num_requests_waiting", "Number of requests waiting to be processed.")
        self.prompt_tokens = counter("prompt_tokens", "Number of prefill tokens processed.")
        self.generation_tokens = counter(
            "generation_tokens", "Number of generation tokens processed."
        )
        success = Counter(
            "vllm:request_success",
            "Count of successfully processed requests.",
            [*names, "finished_reason"],
            registry=registry,
        )
        self.finished = {reason: success.labels(*values, reason) for reason in _REASONS}
        self._loras = Gauge(
            "vllm:lora_requests_info",
            "Running stats on lora requests.",
            ["max_lora", "waiting_lora_adapters", "running_lora_adapters"],
            registry=registry,
        )

    def render(self, running: Sequence[str | None], waiting: Sequence[str | None]) -> bytes:
        """Return the Prometheus text; `running` and `waiting` hold each request's adapter's name.

        None stands for the base model.
        """
        self._running.set(len(running))
        self._waiting.set(len(waiting))
        self._loras.clear()
        self._loras.labels(
            max_lora=str(self._max_loras),
            waiting_lora_adapters=_names(waiting),
            running_lora_adapters=_names(running),
        ).set_to_current_time()
        return generate_latest(self._registry)


def _names(adapters: Sequence[str | None]) -> str:
    return ",".join(sorted({name for name in adapters if name is not None}))
