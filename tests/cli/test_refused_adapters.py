"""Adapters that no server can take, or that answer too slowly: deploying one is one line."""

from collections.abc import Mapping
from pathlib import Path

from peft import LoraConfig

from lora_assets.lifecycle import GATES
from lora_assets.stack_resources import Resources
from tests.support.commands import Run, keep, register
from tests.support.random_adapters import save_adapter


def test_an_adapter_that_no_server_can_take_is_one_line_and_changes_nothing(
    run: Run, resources: Resources, environment: Mapping[str, str],
    tmp_path: Path,
) -> None:  # fmt: skip
    config = LoraConfig(r=64, target_modules=["q_proj"])
    version = register(resources, save_adapter(tmp_path / "made", config, seed=1), "candidate")
    keep(resources, "gate_result", version)
    (replica,) = resources.fleet.discover().members

    def state() -> object:
        files = sorted(Path(environment["ADAPTERS_DIR"]).rglob("*"))
        return resources.registry.aliases(), replica.loaded(), files

    untouched = state()
    message, _ = run(environment, "deploy")
    assert str(message).startswith("error: staged_deployment: ")
    assert "rank 64 is above the server's 32" in str(message)
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
