"""The whole stack, for as long as a test."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.dagster_processes import Running


@pytest.fixture
def stopped(tmp_path: Path) -> Iterator[Running]:
    """With nothing started yet: what is put into the bucket now is there before the sensor."""
    stack = Running(tmp_path)
    yield stack
    stack.stop()


@pytest.fixture
def running(stopped: Running) -> Running:
    stopped.start_all()
    return stopped
