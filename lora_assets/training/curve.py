"""The learning curve as a picture."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from lora_assets.records.training import LossPoint

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def learning_curve(points: Sequence[LossPoint]) -> "Figure":
    """Training and evaluation loss (nats per answer token) over optimizer updates."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(7, 4), dpi=100, layout="constrained")
    axes = figure.add_subplot()
    for name, label, style in (("train_loss", "train", "-"), ("eval_loss", "eval", "o-")):
        series = [(point.step, point.value) for point in points if point.name == name]
        if series:
            axes.plot(*zip(*series, strict=True), style, label=label)
    axes.set_xlabel("optimizer updates")
    axes.set_ylabel("loss (nats per answer token)")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.3)
    if axes.lines:
        axes.legend()
    return figure
