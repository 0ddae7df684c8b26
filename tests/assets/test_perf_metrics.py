"""What a load test compares its candidate with."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from lora_assets.assets.perf_metrics import STORED_METRICS, PerfConfig
from lora_assets.cli.config_options import chosen
from lora_assets.errors import LoraAssetsError
from lora_assets.records.load import PerfMetrics
from lora_assets.resources.fleet import Fleet
from lora_assets.stack_resources import Resources
from tests.support.policies import policy_file
from tests.support.promotions import stage, take_through
from tests.support.records import passed_verdict


def take(resources: Resources, folder: Path, data_version: str, **load_test: Any) -> PerfMetrics:
    """Stage a version, and take it through to live."""
    stage(resources, folder, data_version)
    return take_through(resources, data_version, **load_test)


def passed_on(resources: Resources, metrics: PerfMetrics, **where: str | None) -> None:
    """Have live's perf gate rest on a load test of its own."""
    live = resources.registry.aliases()["live"]
    known = {"evidence_run_id": metrics.mlflow_run_id, **where}
    verdict = passed_verdict("perf_gate", live, None, **known)
    resources.registry.store_verdict(live, verdict)


def test_the_rule_paired_takes_no_stored_baseline() -> None:
    options = {"decision_rule": "paired", "measure_baseline": False}
    with pytest.raises(LoraAssetsError, match=r"measure-baseline False .* no stored baseline"):
        chosen(PerfConfig, options)
    for accepted in ({"decision_rule": "paired"}, {"measure_baseline": False}):
        assert chosen(PerfConfig, accepted) == accepted


def test_live_is_measured_where_its_own_load_test_says_nothing_of_now(
    resources: Resources, adapter_folders: tuple[Path, ...], tmp_path: Path
) -> None:
    fleet = Fleet(**{**dict(resources.fleet), "shares_machine": False})
    alone = replace(resources, fleet=fleet)
    assert take(alone, adapter_folders[0], "1").baseline_source == "none"
    # Live never passed a load test of its own.
    second = take(alone, adapter_folders[1], "2", decision_rule="paired", max_blocks=4)
    assert second.baseline_source == "measured"
    assert second.looks is not None
    assert (second.looks.of, second.looks.at[0], len(second.ratios)) == (4, 2, 3)
    assert second.change is not None
    assert second.candidate.requests == 3 * second.looks.at[-1]
    passed_on(alone, second)
    # The embedded stack: it did, but trainings share the machine.
    third = take(resources, adapter_folders[2], "3")
    assert third.baseline_source == "measured"
    passed_on(resources, third)
    fourth = take(alone, adapter_folders[3], "4")
    assert (fourth.baseline_source, fourth.baseline) == ("stored", third.candidate)
    # Where the policy lists servers, one that was on this server alone is taken over.
    listed = replace(alone, policy=policy_file(tmp_path, {"servers": [fleet.address]}))
    for number, where, source in (("5", None, "measured"), ("6", fleet.address, "stored")):
        passed_on(alone, third, vllm_url=where)
        assert take(listed, adapter_folders[1], number).baseline_source == source
    # A test with more clients on another server says nothing of this one.
    conditions = third.candidate.conditions
    assert conditions is not None
    other = conditions.model_copy(update={"concurrency": 20, "server": "0.31.0"})
    assert conditions.differences(other) == ["concurrency", "server"]
    changed = third.candidate.model_copy(update={"conditions": other}).model_dump_json()
    client = MlflowClient(alone.registry.tracking_uri)
    client.log_text(third.mlflow_run_id, changed, f"{STORED_METRICS}.json")
    passed_on(alone, third)
    assert take(alone, adapter_folders[0], "7").baseline_source == "measured"
