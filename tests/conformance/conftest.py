"""Fixtures of the conformance tests."""

import shutil
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from lora_assets.gates import smoke
from lora_assets.serving.replica import Replica
from lora_assets.serving.replica_folder import shared_folder
from lora_assets.serving.vllm_plugin.adapters_folder import digest_folder
from lora_assets.settings import read_settings
from tests.support.random_adapters import save_standard_adapter
from tests.support.replicas import (
    ADAPTERS,
    Answers,
    Known,
    RunningServer,
    Stack,
    running,
    two_servers,
)


@pytest.fixture(scope="session")
def adapters(tmp_path_factory: pytest.TempPathFactory) -> Sequence[Known]:
    """Six adapters that each answer in their own way."""
    made, model = [], read_settings({}).model_name
    for seed in range(ADAPTERS):
        folder = save_standard_adapter(tmp_path_factory.mktemp("adapter"), seed)
        digest = digest_folder(folder)
        made.append(Known(f"{model}-v{seed + 1}-{digest[:12]}", digest, folder))
    return made


@pytest.fixture(scope="session")
def fresh(adapters: Sequence[Known], tmp_path_factory: pytest.TempPathFactory) -> Answers:
    """What each adapter answers on a server that was just started and has it alone."""
    answers: Answers = {}

    def ask(known: Known) -> None:
        folder = tmp_path_factory.mktemp("fresh") / "adapters"
        folder.mkdir()
        with running(folder, lora_modules={known.name: known.source}) as server:
            server.await_ready()
            replica = Replica(server.url, "", 120, shared_folder(str(folder)))
            answers[known.name] = [replica.complete(known.name, p, 16) for p in smoke.PROMPTS]

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(ask, adapters))
    return answers


@pytest.fixture(scope="session")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sequence[RunningServer]]:
    """Two replicas over one folder."""
    with two_servers(tmp_path_factory.mktemp("replicas") / "adapters") as started:
        yield started


@pytest.fixture
def stack(
    servers: Sequence[RunningServer],
    adapters: Sequence[Known],
    fresh: Answers,
    empty_mlflow: Path,
    tmp_path: Path,
) -> Stack:
    """Both replicas and a registry where nothing is live yet."""
    shutil.copy(empty_mlflow, tmp_path / "mlflow.db")
    return Stack(tmp_path, servers, adapters, fresh)
