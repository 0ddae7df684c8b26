"""Fixtures of the tests here."""

from tests.support.remote_commands import request_key, run, staged, start
from tests.support.remote_dagster import dagster

__all__ = ["dagster", "request_key", "run", "staged", "start"]
