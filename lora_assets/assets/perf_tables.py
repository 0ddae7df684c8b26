"""A load test as numbers, as a table, as the lines of its picture, and as its asset's page."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from lora_assets.assets.figures import TIMES, Time, plot
from lora_assets.assets.pages import Table, sides_rows, table
from lora_assets.records.load import LoadMetrics, PerfMetrics
from lora_assets.records.units import unit_of
from lora_assets.records.verdict import Verdict

if TYPE_CHECKING:
    from matplotlib.figure import Figure

STORED_SAMPLES = "load_samples"
"""What a load test leaves in its MLflow run: LoadSamples."""


def numbers(metrics: LoadMetrics, prefix: str = "") -> Mapping[str, float]:
    """Return one side's metrics under the names that MLflow keeps them by, behind `prefix`."""
    values = {"throughput": metrics.throughput, "success_rate": metrics.success_rate}
    for name, percentiles in (("latency", metrics.latency), ("ttft", metrics.ttft)):
        if percentiles is not None:
            values |= {f"{name}_{p}": value for p, value in percentiles.model_dump().items()}
    return {f"{prefix}{name}": value for name, value in values.items()}


def with_units(values: Mapping[str, float]) -> Mapping[str, float]:
    """Return the numbers under names that have their units."""
    return {f"{name} ({unit_of(name)})": value for name, value in values.items()}


def headline(metrics: PerfMetrics) -> Sequence[str]:
    """Return P95s and throughput of the candidate, beside the baseline's."""
    values = numbers(metrics.candidate)
    baseline = numbers(metrics.baseline) if metrics.baseline is not None else {}
    return [
        f"{name} {values[name]:.3g} {unit_of(name)}"
        + (f" (live {baseline[name]:.3g})" if name in baseline else "")
        for name in ("latency_p95", "ttft_p95", "throughput")
        if name in values
    ]


def metrics_table(metrics: PerfMetrics) -> Table:
    """Return a row per number, a column per side; a number that a side lacks is missing."""
    sides = {"candidate": metrics.candidate, "baseline": metrics.baseline}
    shown = {
        side: {name: f"{value:.4g}" for name, value in with_units(numbers(load)).items()}
        for side, load in sides.items()
        if load is not None
    }
    return table(sides_rows(shown))


def limit_lines(verdict: Verdict, metrics: PerfMetrics) -> Mapping[Time, Mapping[str, float]]:
    """Return the P95s that the gate held the candidate against, in seconds, by what they are."""
    lines: dict[Time, dict[str, float]] = {}
    baseline = metrics.baseline if metrics.baseline_source == "stored" else None
    stored = numbers(baseline) if baseline is not None else {}
    for time in TIMES:
        lines[time] = {
            f"{check.name} {check.comparison}": check.limit
            for check in verdict.checks
            if check.name.startswith(f"p95_{time}")
        }
        if (p95 := stored.get(f"{time}_p95")) is not None:
            lines[time]["stored baseline's p95"] = p95
    return lines


def shown_of(metrics: PerfMetrics, figure: "Figure") -> dict[str, Any]:
    """Return what the asset's page shows of a load test."""
    return {
        "baseline": metrics.baseline_source,
        "load": metrics_table(metrics),
        "latency": plot(figure),
        "server histograms": table(histogram.model_dump() for histogram in metrics.server),
        **with_units(numbers(metrics.candidate, "candidate.")),
    }
