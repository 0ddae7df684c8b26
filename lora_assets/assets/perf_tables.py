"""A load test as numbers, as a table, as the lines of its picture, and as its asset's page."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import dagster as dg

from lora_assets.assets.figures import TIMES, Time, plot
from lora_assets.assets.pages import table
from lora_assets.records.load import LoadMetrics, PerfMetrics
from lora_assets.records.verdict import Verdict

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def numbers(side: str, metrics: LoadMetrics) -> Mapping[str, float]:
    """Return one side's metrics under the names that MLflow keeps them by."""
    values = {
        f"{side}.throughput": metrics.throughput,
        f"{side}.success_rate": metrics.success_rate,
    }
    for name, percentiles in (("latency", metrics.latency), ("ttft", metrics.ttft)):
        if percentiles is not None:
            values |= {f"{side}.{name}_{p}": v for p, v in percentiles.model_dump().items()}
    return values


def metrics_table(metrics: PerfMetrics) -> dg.TableMetadataValue:
    """Return a row per number, a column per side; a number that a side lacks is missing."""
    sides = {"candidate": metrics.candidate}
    if metrics.baseline is not None:
        sides["baseline"] = metrics.baseline
    columns = {
        side: {n.removeprefix(f"{side}."): value for n, value in numbers(side, load).items()}
        for side, load in sides.items()
    }
    return table(
        {"measure": name}
        | {
            side: f"{column[name]:.4g}" if name in column else "missing"
            for side, column in columns.items()
        }
        for name in dict.fromkeys(name for column in columns.values() for name in column)
    )


def limit_lines(verdict: Verdict, metrics: PerfMetrics) -> Mapping[Time, Mapping[str, float]]:
    """Return the P95s that the gate held the candidate against, in seconds, by what they are."""
    lines: dict[Time, dict[str, float]] = {time: {} for time in TIMES}
    for time, drawn in lines.items():
        for check in verdict.checks:
            if check.name.startswith(f"p95_{time}"):
                drawn[f"{check.name} {check.comparison}"] = check.limit
    if metrics.baseline is not None and metrics.baseline_source == "stored":
        stored = {"latency": metrics.baseline.latency, "ttft": metrics.baseline.ttft}
        for time, drawn in lines.items():
            if (percentiles := stored[time]) is not None:
                drawn["stored baseline's p95"] = percentiles.p95
    return lines


def shown_of(metrics: PerfMetrics, figure: "Figure") -> Mapping[str, Any]:
    """Return what the asset's page shows of a load test."""
    return {
        "baseline": metrics.baseline_source,
        "load": metrics_table(metrics),
        "latency": plot(figure),
        "server histograms": table(histogram.model_dump() for histogram in metrics.server),
        **numbers("candidate", metrics.candidate),
    }
