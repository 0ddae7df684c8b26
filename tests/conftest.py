"""A whole embedded stack in a folder of its own, with a real server, registry and bucket."""

import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from peft import LoraConfig

from lora_assets.settings import (
    Resources,
    make_resources,
    read_settings,
)
from tests.support.random_adapters import save_adapter
from tests.support.stack import free_port, serving, stack_environment


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mapping[str, str]]:
    """One server for the session; each test has a registry of its own beside it."""
    environment = stack_environment(tmp_path_factory.mktemp("served"), free_port())
    with serving(environment):
        yield environment


@pytest.fixture(scope="session")
def empty_mlflow(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with MLflow's tables, made once: it takes seconds."""
    home = tmp_path_factory.mktemp("mlflow")
    resources = make_resources(read_settings({"LORA_ASSETS_HOME": str(home)}))
    assert resources.registry.aliases() == {}
    return home / "mlflow.db"


@pytest.fixture
def resources(served: Mapping[str, str], empty_mlflow: Path, tmp_path: Path) -> Resources:
    """The stack of one test: an empty registry, the session's server and its adapters folder."""
    shutil.copy(empty_mlflow, tmp_path / "mlflow.db")
    adapters = str(Path(served["LORA_ASSETS_HOME"]) / "adapters")
    environment = {**served, "LORA_ASSETS_HOME": str(tmp_path), "ADAPTERS_DIR": adapters}
    return make_resources(read_settings(environment))


@pytest.fixture(scope="session")
def adapter_folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ...]:
    """Four adapters that each answer in their own way."""
    made = []
    for seed in range(4):
        config = LoraConfig(r=8, target_modules=["q_proj", "v_proj"])
        made.append(save_adapter(tmp_path_factory.mktemp("adapter"), config, seed, std=0.1))
    return tuple(made)
