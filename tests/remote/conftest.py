"""Fixtures of the tests here."""

from tests.support.remote_commands import staged, stages
from tests.support.remote_dagster import dagster

__all__ = ["dagster", "staged", "stages"]
