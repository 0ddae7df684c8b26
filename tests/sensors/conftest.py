"""Fixtures of the tests here."""

from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

from tests.support.automated import Automated


@pytest.fixture
def automated(tmp_path: Path) -> Iterator[Automated]:
    with dg.DagsterInstance.ephemeral() as instance:
        yield Automated(tmp_path, instance)
