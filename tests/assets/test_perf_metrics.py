"""What a load test compares its candidate with."""

from dataclasses import replace
from pathlib import Path

from lora_assets.environment import Resources
from lora_assets.records.load_test import PerfMetrics
from lora_assets.resources.fleet import Fleet
from tests.conftest import passed_verdict
from tests.promotions import stage, take_through


def take(resources: Resources, folder: Path, data_version: str) -> PerfMetrics:
    """Take a version through to live, its own load test being what its perf gate passed on."""
    version = stage(resources, folder, data_version)
    metrics = take_through(resources, data_version)
    verdict = passed_verdict("perf_gate", version, None)
    evidence = {"evidence_run_id": metrics.mlflow_run_id}
    resources.registry.store_verdict(version, verdict.model_copy(update=evidence))
    return metrics


def test_live_is_measured_beside_the_candidate_where_the_fleet_shares_its_machine_with_trainings(
    resources: Resources, adapter_folders: tuple[Path, ...]
) -> None:
    assert take(resources, adapter_folders[0], "1").baseline_source == "none"
    shared = take(resources, adapter_folders[1], "2")
    assert shared.baseline_source == "measured"
    fleet = resources.fleet
    alone = Fleet(
        vllm_url=fleet.vllm_url, adapters_dir=fleet.adapters_dir, base_model=fleet.base_model
    )
    stored = take(replace(resources, fleet=alone), adapter_folders[2], "3")
    assert (stored.baseline_source, stored.baseline) == ("stored", shared.candidate)
