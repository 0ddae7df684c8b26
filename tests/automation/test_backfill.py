"""A backfill over fresh, failed and finished versions: each as far as it earns, none twice."""

import os
from itertools import pairwise

import dagster as dg
import pytest

from lora_assets.assets.graph import SERVING, TRAINING
from lora_assets.automation.next_run import stopped_by
from lora_assets.definitions import ASSETS, CHECKS
from lora_assets.lifecycle import PROMOTION
from lora_assets.records.dataset import version_order
from lora_assets.records.run_tags import WHY
from lora_assets.sensors.history import read_progress
from tests.support.dagster_processes import Running
from tests.support.data_versions import drop

pytestmark = pytest.mark.e2e

VERSIONS = int(os.environ.get("VERSIONS", "3"))
SECONDS = 900.0 * VERSIONS
NAMES = [str(number) for number in range(1, VERSIONS + 1)]
SPOILED = NAMES[1::5]
BEFORE = NAMES[:2]
"""Finished and failed when the backfill begins."""

POOLS = {definition.op.name: definition.op.pool for definition in (*ASSETS, *CHECKS)}

Span = tuple[float, float]


def test_live_ends_at_the_newest_version_that_earned_it(stopped: Running) -> None:
    for number, name in enumerate(NAMES, start=1):
        drop(stopped.settings.s3_data_bucket, name, 8 * number, spoiled=name in SPOILED)
    stopped.start_all()
    stopped.backfill(BEFORE, "the first two", SECONDS)
    assert promoted(stopped) == ["1"]
    assert stopped_by(read_progress(stopped.instance, ["2"])[0]) == "quality_gate"

    stopped.backfill(NAMES, "all of them", SECONDS)
    stopped.wait_for(stopped.is_settled, SECONDS)

    stops = {p.data_version: stopped_by(p) for p in read_progress(stopped.instance, NAMES)}
    assert [name for name, gate in stops.items() if gate == "quality_gate"] == SPOILED
    # A good one may be slower than live on a busy machine; it has not earned its promotion then.
    newest = max((name for name, gate in stops.items() if gate is None), key=version_order)
    assert promoted(stopped)[-1] == newest
    order = [version_order(str(name)) for name in promoted(stopped)]
    assert order == sorted(order)
    registry, fleet = stopped.resources.registry, stopped.resources.fleet
    live = registry.aliases()["live"]
    assert live == registry.newest(newest)
    assert set(fleet.discover().serving(fleet.live_slot).values()) == {live.digest}
    assert len(set(trainings(stopped, "1"))) == 1 < len(trainings(stopped, "1"))
    assert all(record.dagster_run.tags[WHY] for record in stopped.runs())

    training, serving = spans(stopped, TRAINING), spans(stopped, SERVING)
    for held in (training, serving):
        assert all(first[1] <= then[0] for first, then in pairwise(sorted(held)))
    assert any(s[0] < t[1] and t[0] < s[1] for t in training for s in serving)


def promoted(running: Running) -> list[str | None]:
    """The data versions that went live, in the order of time."""
    found = running.instance.fetch_materializations(
        dg.AssetKey(PROMOTION), limit=10 * VERSIONS, ascending=True
    )
    return [record.partition_key for record in found.records]


def trainings(running: Running, data_version: str) -> list[object]:
    """The MLflow runs behind an adapter's materialisations."""
    of_version = dg.AssetRecordsFilter(dg.AssetKey("adapter"), asset_partitions=[data_version])
    found = running.instance.fetch_materializations(of_version, limit=10).records
    made = [record.asset_materialization for record in found]
    return [each.metadata["mlflow run"].value for each in made if each is not None]


def spans(running: Running, pool: str) -> list[Span]:
    """Start and end of every step that a pool holds apart."""
    return [
        (step.start_time, step.end_time)
        for record in running.runs()
        for step in running.instance.get_run_step_stats(record.dagster_run.run_id)
        if POOLS.get(step.step_key) == pool and step.start_time and step.end_time
    ]
