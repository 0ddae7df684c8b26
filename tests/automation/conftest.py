"""The whole stack, for as long as a test."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.automation.dagster_processes import Running


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Running]:
    running = Running(tmp_path)
    try:
        running.start_all()
        yield running
    finally:
        running.stop()
