"""What is left to do of a data version, by Dagster's own history."""

import dagster as dg
import pytest

from lora_assets.cli.unfinished import evaluations, unfinished
from lora_assets.definitions import ASSETS
from lora_assets.lifecycle import STAGES

GATES = {asset: stage.gate and stage.gate.name for asset, stage in STAGES.items()}


def report(instance: dg.DagsterInstance, data_version: str, stopped_by: str | None = None) -> None:
    """A run that made one asset after the other until a gate stopped it."""
    for asset, gate in GATES.items():
        key = dg.AssetKey(asset)
        instance.report_runless_asset_event(dg.AssetMaterialization(key, partition=data_version))
        if gate is not None:
            instance.report_runless_asset_event(
                dg.AssetCheckEvaluation(
                    asset_key=key,
                    check_name=gate,
                    passed=gate != stopped_by,
                    partition=data_version,
                )
            )
        if gate == stopped_by and gate is not None:
            return


def left(instance: dg.DagsterInstance, data_version: str) -> tuple[set[str], set[str], str | None]:
    found = unfinished(instance, data_version)
    assets = {key.to_user_string() for key in found.assets}
    return assets, {key.name for key in found.checks}, found.stopped_by


def test_of_a_new_data_version_everything_is_left(instance: dg.DagsterInstance) -> None:
    report(instance, "1")
    assets, gates, stopped_by = left(instance, "2")
    assert assets == set(GATES) == {asset.key.to_user_string() for asset in ASSETS}
    assert gates == set(filter(None, GATES.values()))
    assert stopped_by is None


def test_of_a_data_version_that_became_live_nothing_is_left(instance: dg.DagsterInstance) -> None:
    report(instance, "1")
    assert left(instance, "1") == (set(), set(), None)
    gates = [key.name for key in evaluations(instance, "1")]
    assert gates == ["data_is_sound", "quality_gate", "smoke_test", "eval_gate", "perf_gate"]


@pytest.mark.parametrize("gate", ["data_is_sound", "quality_gate", "smoke_test", "eval_gate"])
def test_a_gate_that_failed_is_the_end_of_a_data_version(
    instance: dg.DagsterInstance, gate: str
) -> None:
    report(instance, "1", stopped_by=gate)
    assert left(instance, "1")[2] == gate


def test_a_load_test_that_failed_is_made_again_and_what_follows_it(
    instance: dg.DagsterInstance,
) -> None:
    report(instance, "1", stopped_by="perf_gate")
    assert left(instance, "1") == ({"perf_metrics", "live_deployment"}, {"perf_gate"}, None)
