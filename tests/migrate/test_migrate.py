"""docs/migrate.md, step by step, on a registry and a bucket as the five scripts leave them."""

import json
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from peft import LoraConfig

from lora_assets.embedded.data_set.versions import contents
from lora_assets.records.served import LIVE_SLOT
from lora_assets.serving.vllm_plugin.adapters_folder import digest_folder
from lora_assets.settings import EMBEDDED_BASE_NAME, read_settings
from lora_assets.stack_resources import make_resources
from tests.support.cluster_parts import mlflow_server
from tests.support.cluster_stages import EVALUATE, PERFORMANCE, training
from tests.support.commands import Output
from tests.support.consoles import REPOSITORY, require_shown, typed
from tests.support.policies import ANY_ANSWER, ANY_SPEED, ANY_TRAINING, write_policy
from tests.support.random_adapters import ATTENTION, save_adapter
from tests.support.scripts_registry import register_by_script
from tests.support.stack import free_port, serving, stack_environment

pytestmark = pytest.mark.e2e

PAGE = REPOSITORY / "docs" / "migrate.md"
ROWS_OF_A_KIND = {"train": 60, "val": 4, "eval": 4}


@pytest.fixture
def environment(tmp_path: Path) -> Iterator[Mapping[str, str]]:
    """A stack with an MLflow server and a bucket that others have filled."""
    mlflow = mlflow_server(tmp_path)
    with mlflow.running():
        theirs = {"MLFLOW_TRACKING_URI": mlflow.url, "MLFLOW_ARTIFACTS": ""}
        policy = write_policy(tmp_path, ANY_TRAINING, ANY_ANSWER, ANY_SPEED)
        yield {**stack_environment(tmp_path, free_port()), **theirs, **policy}


@pytest.fixture
def lora(output: Output, environment: Mapping[str, str]) -> Output:
    """`lora-assets`: what it printed, or with which line it failed."""
    return partial(output, environment)


def fill_bucket(bucket: Path) -> None:
    """Write data versions 1 and 2 as the scripts read them: only negatives say what they are."""
    for version, service in (("1", "s3"), ("2", "lambda")):
        folder = bucket / "data" / "processed" / version
        folder.mkdir(parents=True)
        for split, content in contents([service]).items():
            rows = [json.loads(line) for line in content.splitlines()]
            negative = [row for row in rows if row["metadata"]["question_type"] == "negative"]
            factual = [{**row, "metadata": {}} for row in rows if row not in negative]
            kept = [*negative[: ROWS_OF_A_KIND[split]], *factual[: ROWS_OF_A_KIND[split]]]
            (folder / f"{split}.jsonl").write_text("".join(f"{json.dumps(r)}\n" for r in kept))


def nonsense(folder: Path, seed: int) -> Path:
    """An adapter that any training betters."""
    config = LoraConfig(r=8, target_modules=ATTENTION, base_model_name_or_path=EMBEDDED_BASE_NAME)
    return save_adapter(folder, config, seed, std=0.5)


def served(lora: Output) -> Mapping[str, Any]:
    found = json.loads(lora("status", "--json"))
    assert found["agrees"] is True
    (replica,) = found["replicas"]
    versions = {alias: each["version"] for alias, each in found["aliases"].items()}
    return {
        "aliases": versions,
        "others": found["others"],
        "live": replica["adapters"].get(LIVE_SLOT),
    }


def test_from_the_five_scripts_to_a_promotion_a_rollback_and_back(
    lora: Output, environment: Mapping[str, str], tmp_path: Path
) -> None:
    registry = make_resources(read_settings(environment)).registry
    adapters = [nonsense(tmp_path / f"trained-{seed}", seed) for seed in range(2)]
    left = [adapters[0] / name for name in ("README.md", "training_args.bin")]
    for file in left:
        file.write_text("of train_lora.py")
    fill_bucket(tmp_path / "bucket")
    for _ in range(2):
        register_by_script(registry, adapters[1], tags={})
    live = register_by_script(registry, adapters[0], "live", "champion", tags={"data.version": "1"})
    register_by_script(registry, adapters[1], "candidate", tags={"data.version": "1"})
    assert live == 3

    with serving(environment):
        looked = served(lora)
        assert looked["aliases"] == {}
        assert looked["others"] == {
            "live": {"version": 3}, "champion": {"version": 3}, "candidate": {"version": 4},
        }  # fmt: skip
        assert "'lora-assets adopt --model-version 3'" in lora("check", "--data-version", "2")
        adopted = lora("adopt")
        for file in left:
            file.unlink()
        digest = digest_folder(adapters[0])
        assert f"version 3: digest {digest[:12]}, data version 1; left behind: README.md" in adopted
        shown = [each for each in typed(PAGE, "cluster") if each.line == "lora-assets adopt"]
        for each, printed in zip(shown, (adopted, lora("adopt")), strict=True):
            require_shown(each, printed)

    with serving(environment):
        restored = served(lora)
        assert restored["aliases"] == {"live": 3, "candidate": 4}
        assert restored["others"] == {"champion": {"version": 3}}
        assert restored["live"] == digest

        assert lora("check", "--data-version", "2") == ""
        for stage in (training("2", "3e-3"), ("deploy",), EVALUATE, PERFORMANCE):
            assert "error" not in lora(*stage)
        verdicts = registry.verdicts(registry.resolve("alias:perf-passed"))
        assert {verdicts[gate].compared_with for gate in ("eval_gate", "perf_gate")} == {digest}
        assert "error" not in lora("promote", "--source-alias", "perf-passed")
        promoted = served(lora)
        assert (promoted["aliases"]["live"], promoted["aliases"]["previous"]) == (5, 3)
        assert promoted["live"] == registry.resolve("version:5").digest

        assert "error" not in lora("rollback")
        back = served(lora)
        assert (back["aliases"]["live"], back["aliases"]["previous"]) == (3, 5)
        assert back["live"] == digest

    # The way back: without that tag a version is as the scripts left it, and they can read ours.
    client = MlflowClient(environment["MLFLOW_TRACKING_URI"])
    client.delete_model_version_tag(registry.model_name, "3", "adapter.digest")
    assert registry.others()["live"] == 3
    ours = client.get_model_version_by_alias(registry.model_name, "previous")
    assert client.get_run(ours.run_id).data.tags["data.version"] == "2"
    files = {each.path for each in client.list_artifacts(ours.run_id, "adapter")}
    assert files == {"adapter/adapter_config.json", "adapter/adapter_model.safetensors"}
