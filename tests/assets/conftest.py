"""Fixtures of the tests here."""

from tests.support.tiny_models import make_model, rows, tiny_model

__all__ = ["make_model", "rows", "tiny_model"]
