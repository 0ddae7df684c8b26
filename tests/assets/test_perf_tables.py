from lora_assets.assets.figures import data_url, latency_distribution
from lora_assets.assets.perf_tables import headline, limit_lines, metrics_table
from lora_assets.gates.performance import PerfThresholds, perf_gate
from lora_assets.records.load import LoadMetrics, LoadSamples, PerfMetrics, RequestSample
from tests.support.records import NOW, load_metrics, perf_metrics


def load(latency: float | None) -> LoadMetrics:
    return load_metrics(latency, latency, throughput=10)


def perf(baseline: LoadMetrics | None, source: str) -> PerfMetrics:
    return perf_metrics(load(1.0), baseline, baseline_source=source)


def lines(metrics: PerfMetrics) -> dict[str, float]:
    verdict = perf_gate(metrics, PerfThresholds(), NOW)
    return dict(limit_lines(verdict, metrics)["latency"])


def test_the_limits_are_those_that_the_gate_used() -> None:
    assert lines(perf(None, "none")) == {"p95_latency <": 8.0}
    assert lines(perf(load(2.0), "measured")) == {
        "p95_latency <": 8.0,
        "p95_latency vs baseline <=": 2.0 * 1.15,
    }


def test_a_baseline_without_samples_is_a_line() -> None:
    assert lines(perf(load(2.0), "stored"))["stored baseline's p95"] == 2.0


def test_a_side_that_answered_nothing_lacks_its_times() -> None:
    shown = {r.data["measure"]: r.data for r in metrics_table(perf(load(None), "measured")).records}
    assert shown["latency_p95 (s)"] == {
        "measure": "latency_p95 (s)",
        "candidate": "1",
        "baseline": "missing",
    }
    assert shown["throughput (requests/s)"]["baseline"] == "10"


def test_the_headline_has_three_numbers_with_units_beside_lives() -> None:
    assert headline(perf(load(2.0), "measured")) == [
        "latency_p95 1 s (live 2)",
        "ttft_p95 1 s (live 2)",
        "throughput 10 requests/s (live 10)",
    ]


def test_a_failed_request_keeps_its_curve_below_the_whole() -> None:
    def sample(latency: float | None) -> RequestSample:
        error = None if latency else "timeout"
        return RequestSample(started=0, latency=latency, ttft=latency, output_tokens=1, error=error)

    samples = (sample(0.5), sample(1.0), sample(2.0), sample(None))
    load = LoadSamples(candidate=samples, live=None)
    figure = latency_distribution(load, {"latency": {"p95_latency <": 8.0}})
    curve, limit, *_ = figure.axes[0].lines
    assert list(curve.get_ydata()) == [0.25, 0.5, 0.75]
    assert list(limit.get_xdata()) == [8.0, 8.0]
    named = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    assert named == ["candidate", "p95_latency < 8 s"]
    none = LoadSamples(candidate=(sample(None),), live=None)
    assert data_url(latency_distribution(none, {})).startswith("data:image/png")
