import numpy as np

from lora_assets.records.training import LossPoint
from lora_assets.training.curve import learning_curve


def test_the_curve_shows_both_losses_over_labelled_axes() -> None:
    points = [
        LossPoint(step=1, name="train_loss", value=2.0),
        LossPoint(step=2, name="train_loss", value=1.0),
        LossPoint(step=2, name="eval_loss", value=1.5),
    ]
    (axes,) = learning_curve(points).axes
    train, evaluation = axes.lines
    assert np.asarray(train.get_xydata()).tolist() == [[1, 2.0], [2, 1.0]]
    assert np.asarray(evaluation.get_xydata()).tolist() == [[2, 1.5]]
    assert axes.get_xlabel() == "optimizer updates"
    assert axes.get_ylabel() == "loss (nats per answer token)"
