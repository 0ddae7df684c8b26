"""Nobody touches anything: versions go as far as they earn, and what was lost comes back."""

import pytest

from lora_assets.automation.next_run import stopped_by
from lora_assets.sensors.history import read_progress
from tests.support.dagster_processes import Running
from tests.support.data_versions import drop

pytestmark = pytest.mark.e2e

SECONDS = 1800.0


def test_a_version_reaches_live_a_spoiled_one_stops_alone_and_a_replica_that_forgot_is_repaired(
    running: Running,
) -> None:
    registry, fleet = running.resources.registry, running.resources.fleet
    bucket = running.settings.s3_data_bucket
    drop(bucket, "1")
    drop(bucket, "2", spoiled=True)
    running.wait_for(running.is_settled, SECONDS)
    live = registry.aliases()["live"]
    assert live.data_version == "1"
    assert set(fleet.discover().serving(fleet.live_slot).values()) == {live.digest}
    assert stopped_by(read_progress(running.instance, ["2"])[0]) == "quality_gate"
    keys = [record.dagster_run.tags["dagster/run_key"] for record in running.runs()]
    assert [key.rpartition("/")[2] for key in keys] == ["1"] * 3
    running.wait_for(lambda: len(running.webhook.texts) == 1, SECONDS)
    assert running.webhook.texts[0].startswith("Data version 2: quality_gate failed: eval_loss")

    running.switch_on("replica_repair")
    replica = fleet.discover().members[0]
    replica.unload(live.serving_name)
    running.wait_for(lambda: len(running.webhook.texts) == 2, SECONDS)
    drift, _, outcome = running.webhook.texts[1].partition(". ")
    assert drift.startswith(f"{replica.url} serves nothing as {live.serving_name}")
    assert outcome.startswith("It was repaired; nothing to do.")
    assert set(fleet.discover().serving(fleet.live_slot).values()) == {live.digest}
