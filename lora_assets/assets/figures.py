"""Plots as Dagster metadata."""

import base64
from collections.abc import Sequence
from io import BytesIO

import dagster as dg
from matplotlib.figure import Figure

from lora_assets.records.load_test import RequestSample


def plot(figure: Figure) -> dg.MarkdownMetadataValue:
    """A figure that Dagster's UI shows in place."""
    png = BytesIO()
    figure.savefig(png, format="png")
    encoded = base64.b64encode(png.getvalue()).decode()
    return dg.MetadataValue.md(f"![plot](data:image/png;base64,{encoded})")


def latency_distribution(sides: Sequence[tuple[str, Sequence[RequestSample]]]) -> Figure:
    """Each side's end-to-end latencies (seconds) as a cumulative curve."""
    figure = Figure(figsize=(7, 4), dpi=100, layout="constrained")
    axes = figure.add_subplot()
    for label, samples in sides:
        latencies = sorted(s.latency for s in samples if s.latency is not None)
        shares = [(rank + 1) / len(samples) for rank in range(len(latencies))]
        axes.step(latencies, shares, where="post", label=label)
    axes.axhline(0.95, linestyle=":", color="grey")
    axes.set_xlabel("end-to-end latency (s)")
    axes.set_ylabel("share of requests")
    axes.legend()
    return figure
