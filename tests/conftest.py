"""A whole embedded stack in a folder of its own, and the kind of each test."""

import os
import platform
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

# Here, while there is one thread: its pytest plugin imports it as late as in the summary, where
# ast.parse, which rewrites its assertions, can fail (python/cpython issue 106905).
import dagster as dg
import hypothesis

# Matplotlib keeps the list of fonts from the first time, when it starts 'fc-list'.
import matplotlib.font_manager  # noqa: F401
import pytest
from peft import LoraConfig

from lora_assets.settings import read_settings
from lora_assets.stack_resources import Resources, make_resources
from tests.support.commands import output, run
from tests.support.random_adapters import save_adapter
from tests.support.stack import free_port, serving, stack_environment
from tests.support.tiny_models import make_model, rows, tiny_model

__all__ = ["make_model", "output", "rows", "run", "tiny_model"]

# MLflow asks again at once: a server that is away is away for the whole test.
for pause in ("FACTOR", "JITTER"):
    os.environ[f"MLFLOW_HTTP_REQUEST_BACKOFF_{pause}"] = "0"

# Python keeps it from the first time, when it starts 'uname': whoever imports MLflow asks for it.
platform.platform()

# How fast a busy machine is proves nothing.
hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")

KINDS = ("unit", "integration", "e2e")
_unit_tests: list[str] = []
"""The unit test that runs now, if one does."""


def kinds(item: pytest.Item) -> Sequence[str]:
    return [kind for kind in KINDS if item.get_closest_marker(kind)]


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: Sequence[pytest.Function]) -> None:
    """Mark each unmarked test: a fixture that tests share is costly, so theirs is no unit test."""
    for item in items:
        if not kinds(item):
            item.add_marker("integration" if _shares_fixtures(item) else "unit")


def _shares_fixtures(item: pytest.Function) -> bool:
    definitions = item._fixtureinfo.name2fixturedefs.values()
    ours = [last for *_, last in definitions if last.baseid]
    return any(fixture.scope in ("session", "module") for fixture in ours)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    _unit_tests[:] = [item.nodeid] if "unit" in kinds(item) else []
    return (yield)


def _refuse_processes(event: str, arguments: object) -> None:
    if event == "subprocess.Popen" and _unit_tests:
        raise AssertionError("A unit test starts a process: mark it with pytest.mark.integration")


sys.addaudithook(_refuse_processes)


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mapping[str, str]]:
    """One server for the session; each test has a registry of its own beside it."""
    environment = stack_environment(tmp_path_factory.mktemp("served"), free_port())
    with serving(environment):
        yield environment


@pytest.fixture
def empty_server(served: Mapping[str, str]) -> Mapping[str, str]:
    """The session's server without what another test left there, in a slot or loaded."""
    replicas = make_resources(read_settings(served)).fleet.discover()
    (folder,) = replicas.folders
    if Path(folder.path).is_dir():
        for slot in folder.slots():
            folder.clear_slot(slot)
        replicas.retire([])
    return served


@pytest.fixture(scope="session")
def empty_mlflow(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with MLflow's tables, made once: it takes seconds."""
    home = tmp_path_factory.mktemp("mlflow")
    resources = make_resources(read_settings({"LORA_ASSETS_HOME": str(home)}))
    assert resources.registry.aliases() == {}
    return home / "mlflow.db"


@pytest.fixture
def environment(
    empty_server: Mapping[str, str], empty_mlflow: Path, tmp_path: Path
) -> Mapping[str, str]:
    """The stack of one test: an empty registry, the session's server and its adapters folder."""
    shutil.copy(empty_mlflow, tmp_path / "mlflow.db")
    adapters = str(Path(empty_server["LORA_ASSETS_HOME"]) / "adapters")
    return {**empty_server, "LORA_ASSETS_HOME": str(tmp_path), "ADAPTERS_DIR": adapters}


@pytest.fixture
def resources(environment: Mapping[str, str]) -> Resources:
    return make_resources(read_settings(environment))


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    """A Dagster without a run, in memory."""
    with dg.DagsterInstance.ephemeral() as instance:
        yield instance


@pytest.fixture(scope="session")
def adapter_folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ...]:
    """Four adapters that each answer in their own way."""
    made = []
    for seed in range(4):
        config = LoraConfig(r=8, target_modules=["q_proj", "v_proj"])
        made.append(save_adapter(tmp_path_factory.mktemp("adapter"), config, seed, std=0.1))
    return tuple(made)
