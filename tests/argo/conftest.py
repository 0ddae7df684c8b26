"""Fixtures of the tests here."""

from tests.remote_dagster import dagster

__all__ = ["dagster"]
