"""Where a gate's page leads, in Dagster's UI and in MLflow's."""

import logging
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from mlflow import MlflowClient

from lora_assets.assets.adapter import quality_gate
from lora_assets.assets.graph import data_versions
from lora_assets.assets.pages import pages_of
from lora_assets.assets.perf_metrics import perf_gate
from lora_assets.assets.perf_tables import STORED_SAMPLES
from lora_assets.assets.registered import RECORD
from lora_assets.records.load import LoadSamples
from lora_assets.records.training import Adapter
from lora_assets.stack_resources import Resources
from tests.support.records import load_metrics, perf_metrics
from tests.support.stack import trained

REPORT = "artifacts/report.html?workflowType=machine_learning"


@pytest.fixture
def adapter(resources: Resources, adapter_folders: tuple[Path, ...]) -> Adapter:
    """A training as it is left, but for its record."""
    left = trained(resources, adapter_folders[0], "1")
    resources.tracking.reopen(left.mlflow_run_id).parameters({"lora_config": "standard"})
    return left


def judge(
    resources: Resources, check: dg.AssetChecksDefinition, measured: Any, **limits: float
) -> tuple[dg.AssetCheckEvaluation, list[str]]:
    """Run a gate on what was measured; return what it says, and what its run warned of."""
    (key,) = check.check_keys

    @dg.asset(name=key.asset_key.to_user_string(), partitions_def=data_versions)
    def stage() -> Any:
        return measured

    op = f"{key.asset_key.to_user_string()}_{key.name}"
    with dg.DagsterInstance.ephemeral() as instance:
        instance.add_dynamic_partitions("data_version", ["1"])
        result = dg.materialize(
            [stage, check], instance=instance, partition_key="1", resources=vars(resources),
            run_config={"ops": {op: {"config": limits}}}, raise_on_error=False,
        )  # fmt: skip
        logged = instance.all_logs(result.run_id)
    (said,) = result.get_asset_check_evaluations()
    return said, [entry.user_message for entry in logged if entry.level == logging.WARNING]


def test_the_report_is_kept_where_a_gate_says_no_and_where_the_last_one_decided(
    resources: Resources, adapter: Adapter, tmp_path: Path
) -> None:
    tracking, registry = resources.tracking, resources.registry
    run = tracking.reopen(adapter.mlflow_run_id)
    run.record(adapter, RECORD)
    assert "report" not in judge(resources, quality_gate, adapter)[0].metadata
    no, _ = judge(resources, quality_gate, adapter, max_eval_loss=0.05)
    assert not no.passed
    assert str(no.metadata["report"].value).endswith(f"/runs/{run.run_id}/{REPORT}")
    report = tracking.download(run.run_id, "report.html", tmp_path)
    assert "No model version" in report.read_text()

    version = registry.register(adapter)
    with tracking.run("performance", "perf", "perf", {}) as load:
        load.record(LoadSamples(candidate=(), live=None), STORED_SAMPLES)
    identity = {**version.identity, "model_version": version.version, "mlflow_run_id": load.run_id}
    said, _ = judge(resources, perf_gate, perf_metrics(load_metrics(), **identity))
    assert said.passed
    links = {name: str(said.metadata[name].value) for name in ("report", "mlflow run")}
    assert links["report"].endswith(f"/runs/{run.run_id}/{REPORT}")
    assert f"/runs/{load.run_id}?" in links["mlflow run"]
    page = tracking.download(run.run_id, "report.html", tmp_path).read_text()
    assert "perf_gate: " in page
    assert "perf-passed" in page
    assert pages_of(registry, version)["report"].value == links["report"]
    client = MlflowClient(registry.tracking_uri)
    described = client.get_model_version(version.model, str(version.version)).description
    assert f"[report.html]({links['report']}) among the training's artifacts" in str(described)


def test_a_report_that_cant_be_made_is_named_and_changes_no_verdict(
    resources: Resources, adapter: Adapter
) -> None:
    said, warned = judge(resources, quality_gate, adapter, max_eval_loss=0.05)
    assert not said.passed
    assert resources.tracking.verdict(adapter.mlflow_run_id, "quality_gate") is not None
    assert str(said.metadata["report"].value).startswith("not made: MLflow run ")
    assert [line.partition(":")[0] for line in warned] == ["The report could not be made"]
