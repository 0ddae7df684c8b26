"""What each parameter of the specification changes, beyond being passed on."""

from collections.abc import Mapping
from pathlib import Path

import pytest

from lora_assets.records.dataset import TrainingData
from lora_assets.resources.tracking import DATA_SOURCE
from lora_assets.stack_resources import Resources
from tests.support.commands import Run, keep, register
from tests.support.remote_dagster import small_data
from tests.support.stack import trained

pytestmark = pytest.mark.integration


@pytest.fixture
def environment(
    served: Mapping[str, str], resources: Resources, tmp_path: Path
) -> Mapping[str, str]:
    """The variables behind `resources`."""
    adapters = resources.fleet.adapters_dir
    return {**served, "LORA_ASSETS_HOME": str(tmp_path), "ADAPTERS_DIR": adapters}


def test_s3_data_bucket_is_where_data_come_from_while_records_stay(
    run: Run,
    environment: Mapping[str, str],
    resources: Resources,
    adapter_folders: tuple[Path, ...],
    tmp_path: Path,
) -> None:
    named = tmp_path / "named"
    small_data(named)
    download = ("train", "--step", "download-data", "--s3-data-bucket", named.as_uri())
    assert run(environment, *download)[0] == 0
    record = tmp_path / "bucket" / "lora-assets" / "records" / "training_data" / "1.json"
    data = TrainingData.model_validate_json(record.read_bytes())
    assert data.source.startswith(named.as_uri())
    assert [path.name for path in named.iterdir()] == ["data"]

    adapter = trained(resources, adapter_folders[0], "1")
    resources.tracking.reopen(adapter.mlflow_run_id).tags({DATA_SOURCE: data.source})
    same_data = adapter.model_copy(update={"data_digest": data.digest})
    resources.registry.set_alias("staged", resources.registry.register(same_data))
    evaluate = ("evaluate", "--step", "download-eval-data")
    assert run(environment, *evaluate)[0] == 0
    ended, _ = run(environment, *evaluate, "--s3-data-bucket", (tmp_path / "empty").as_uri())
    assert str(ended).startswith(f"error: Data version 1 has no {tmp_path.as_uri()}/empty/")


def test_another_vllm_url_is_the_fleet_even_where_a_deployment_is_configured(
    run: Run,
    environment: Mapping[str, str],
    resources: Resources,
    adapter_folders: tuple[Path, ...],
) -> None:
    version = register(resources, adapter_folders[0], "candidate")
    keep(resources, "gate_result", version)
    production = {"VLLM_URL": "http://127.0.0.1:9", "VLLM_DEPLOYMENT": "vllm"}
    load = ("deploy", "--step", "load-adapter", "--vllm-url", environment["VLLM_URL"])
    ended, _ = run({**environment, **production, "VLLM_SERVICE": "a/b"}, *load)
    assert "is not the fleet that VLLM_SERVICE names (a/b)" in str(ended)
    (replica,) = resources.fleet.discover().members
    assert version.serving_name not in replica.loaded()
    assert run({**environment, **production, "VLLM_SERVICE": ""}, *load)[0] == 0
    assert version.serving_name in replica.loaded()


def test_an_empty_judge_model_is_found_by_asking_the_judge(
    run: Run, environment: Mapping[str, str], tmp_path: Path
) -> None:
    small_data(tmp_path / "bucket")
    named = {**environment, "JUDGE_MODEL": "llama"}
    check = ("check", "--data-version", "1")
    assert "does not serve llama, but " in str(run(named, *check)[0])
    assert run(named, *check, "--judge-model=") == (0, "")
