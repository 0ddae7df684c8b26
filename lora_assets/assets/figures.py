"""Plots as Dagster metadata."""

import base64
from collections.abc import Mapping
from io import BytesIO
from typing import TYPE_CHECKING, Literal

import dagster as dg

from lora_assets.records.load import LoadSamples

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Time = Literal["latency", "ttft"]
TIMES: Mapping[Time, str] = {"latency": "end-to-end latency (s)", "ttft": "time to first token (s)"}


def plot(figure: "Figure") -> dg.MarkdownMetadataValue:
    """Return a figure for the asset's page, shown there at a click on "Show Markdown"."""
    return dg.MetadataValue.md(f"![plot]({data_url(figure)})")


def data_url(figure: "Figure") -> str:
    """Return a figure as a URL that has all of its bytes."""
    png = BytesIO()
    figure.savefig(png, format="png")
    return f"data:image/png;base64,{base64.b64encode(png.getvalue()).decode()}"


def latency_distribution(load: LoadSamples, limits: Mapping[Time, Mapping[str, float]]) -> "Figure":
    """Draw each side's latencies and TTFTs as cumulative curves, against P95s to stay below.

    `limits` are in seconds, by their names; a curve passes one where it crosses the dotted
    line (95 % of all requests) to the left of it. A failed request counts as never answered.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator, PercentFormatter

    sides = {side: samples for side, samples in load if samples is not None}
    figure = Figure(figsize=(9, 4), dpi=100, layout="constrained")
    for axes, (time, label) in zip(figure.subplots(1, 2, sharey=True), TIMES.items(), strict=True):
        for side, samples in sides.items():
            times = [sample.latency if time == "latency" else sample.ttft for sample in samples]
            measured = sorted(seconds for seconds in times if seconds is not None)
            shares = [rank / len(samples) for rank in range(1, len(measured) + 1)]
            axes.step(measured, shares, where="post", label=side)
        for number, (name, limit) in enumerate(limits.get(time, {}).items()):
            color = f"C{len(sides) + number}"
            axes.axvline(limit, linestyle="--", color=color, label=f"{name} {limit:.3g} s")
        if any(len(line.get_xdata()) for line in axes.lines):
            # Where no request was answered there is nothing to scale.
            axes.set_xscale("log")
            axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.axhline(0.95, linestyle=":", color="grey")
        axes.xaxis.set_major_formatter(FuncFormatter(lambda seconds, _: f"{seconds:g}"))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.yaxis.set_major_formatter(PercentFormatter(xmax=1))
        axes.set(ylim=(0, 1.02), xlabel=label)
        axes.grid(alpha=0.3)
        axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1), ncols=2, fontsize="small")
    figure.axes[0].set_ylabel("share of requests")
    return figure
