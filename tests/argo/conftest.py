"""The fixtures of these tests."""

from tests.support.remote_dagster import dagster

__all__ = ["dagster"]
