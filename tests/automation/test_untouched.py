"""A version dropped into the bucket reaches live untouched; a spoiled one stops alone."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from lora_assets.gates.advance import stopped_by
from lora_assets.sensors.history import read_progress
from tests.automation.dagster_processes import Running
from tests.automation.versions import drop

SECONDS = 400.0


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Running]:
    running = Running(tmp_path)
    try:
        running.start_all()
        yield running
    finally:
        running.stop()


def test_a_new_version_reaches_live_and_a_spoiled_one_stops_alone(running: Running) -> None:
    registry, fleet = running.resources.registry, running.resources.fleet
    bucket = running.settings.s3_data_bucket
    running.wait_for(lambda: bool(running.instance.all_instigator_state()), SECONDS)
    running.wait_for(switched_on(running), SECONDS)
    drop(bucket, "1", 0)
    drop(bucket, "2", 0, spoiled=True)
    running.wait_for(lambda: "live" in registry.aliases(), SECONDS)
    running.wait_for(lambda: bool(read_progress(running.instance, ["2"])[0].verdicts), SECONDS)
    live = registry.aliases()["live"]
    assert live.data_version == "1"
    assert set(fleet.serving(fleet.live_slot).values()) == {live.digest}
    running.wait_for(
        lambda: stopped_by(read_progress(running.instance, ["2"])[0]) is not None, SECONDS
    )
    assert [r.dagster_run.tags["dagster/run_key"].rpartition("/")[2] for r in running.runs()] == [
        "1"
    ] * 3


def switched_on(running: Running):  # type: ignore[no-untyped-def]
    from dagster._core.definitions.run_request import InstigatorType

    def looked() -> bool:
        states = running.instance.all_instigator_state(instigator_type=InstigatorType.SENSOR)
        return any(
            s.instigator_name == "new_data_versions"
            and s.instigator_data is not None
            and getattr(s.instigator_data, "cursor", None) is not None
            for s in states
        )

    return looked
