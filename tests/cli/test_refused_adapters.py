"""Adapters that no server may get, or that answer too slowly: deploying one is one line."""

import pickle
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from peft import LoraConfig

from lora_assets.lifecycle import GATES
from lora_assets.stack_resources import Resources
from tests.support.commands import Run, keep, register
from tests.support.random_adapters import save_adapter


def with_a_pickle(folder: Path) -> None:
    (folder / "adapter_model.bin").write_bytes(pickle.dumps({"weight": 1.0}))


def of_a_high_rank(folder: Path) -> None:
    shutil.rmtree(folder)
    save_adapter(folder, LoraConfig(r=64, target_modules=["q_proj"]), seed=1)


@pytest.mark.parametrize(
    ("change", "cause"),
    [
        (with_a_pickle, "holds 'adapter_model.bin', which is not part of a safetensors"),
        (of_a_high_rank, "rank 64 is above the server's 32"),
    ],
    ids=["pickle", "rank"],
)
def test_an_adapter_that_no_server_may_get_is_one_line_and_changes_nothing(
    run: Run, resources: Resources, environment: Mapping[str, str],
    adapter_folders: tuple[Path, ...], tmp_path: Path, change: Callable[[Path], None], cause: str,
) -> None:  # fmt: skip
    folder = tmp_path / "made"
    shutil.copytree(adapter_folders[0], folder)
    change(folder)
    version = register(resources, folder, "candidate")
    keep(resources, "gate_result", version)
    (replica,) = resources.fleet.discover().members

    def state() -> object:
        files = sorted(Path(environment["ADAPTERS_DIR"]).rglob("*"))
        return resources.registry.aliases(), replica.loaded(), files

    untouched = state()
    message, _ = run(environment, "deploy")
    assert str(message).startswith("error: staged_deployment: ")
    assert cause in str(message)
    assert "\n" not in str(message)
    assert state() == untouched


def test_a_smoke_test_slower_than_the_run_allows_leaves_the_adapter_unstaged(
    run: Run, resources: Resources, environment: Mapping[str, str],
    adapter_folders: tuple[Path, ...],
) -> None:  # fmt: skip
    version = register(resources, adapter_folders[0], "candidate")
    keep(resources, "gate_result", version)
    message, _ = run(environment, "deploy", "--max-smoke-seconds", "0.00001")
    assert str(message).startswith("error: smoke_test stopped it: slowest answer of ")
    assert str(message).endswith(GATES["smoke_test"].remedy)
    assert set(resources.registry.aliases()) == {"candidate"}
    ended, _ = run(environment, "deploy")
    assert ended == 0
    assert resources.registry.aliases()["staged"] == version
