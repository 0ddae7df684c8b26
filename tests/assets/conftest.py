"""The tiny model of the training tests, and rows that it can be trained on."""

from tests.training.conftest import make_model, rows, tiny_model

__all__ = ["make_model", "rows", "tiny_model"]
