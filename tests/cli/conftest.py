"""Fixtures of the tests here."""

import shutil
from collections.abc import Mapping
from pathlib import Path

import pytest


@pytest.fixture
def no_server(empty_mlflow: Path, tmp_path: Path) -> Mapping[str, str]:
    """An empty registry, and an adapters folder that is not there yet."""
    shutil.copy(empty_mlflow, tmp_path / "mlflow.db")
    return {"LORA_ASSETS_HOME": str(tmp_path), "ADAPTERS_DIR": str(tmp_path / "adapters")}
