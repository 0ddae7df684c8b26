"""A version dropped into the bucket reaches live untouched; a spoiled one stops alone."""

from lora_assets.gates.advance import stopped_by
from lora_assets.sensors.history import read_progress
from tests.automation.dagster_processes import Running
from tests.automation.versions import drop

SECONDS = 1800.0


def test_a_new_version_reaches_live_and_a_spoiled_one_stops_alone(running: Running) -> None:
    registry, fleet = running.resources.registry, running.resources.fleet
    bucket = running.settings.s3_data_bucket
    drop(bucket, "1")
    drop(bucket, "2", spoiled=True)
    running.wait_for(running.is_settled, SECONDS)
    live = registry.aliases()["live"]
    assert live.data_version == "1"
    assert set(fleet.serving(fleet.live_slot).values()) == {live.digest}
    assert stopped_by(read_progress(running.instance, ["2"])[0]) == "quality_gate"
    assert [r.dagster_run.tags["dagster/run_key"].rpartition("/")[2] for r in running.runs()] == [
        "1"
    ] * 3
