"""kill -9 of whatever at any moment: nothing is launched twice, nothing is lost, live is right."""

import os
import random
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import pairwise

import dagster as dg
import pytest

from lora_assets.automation.next_run import CAUSE_TAG, stopped_by
from lora_assets.errors import LoraAssetsError
from lora_assets.lifecycle import PROMOTION
from lora_assets.records.dataset import version_order
from lora_assets.sensors.history import read_progress
from tests.support.dagster_processes import Running
from tests.support.dagster_services import meanwhile
from tests.support.data_versions import drop

pytestmark = pytest.mark.e2e

ROUNDS = int(os.environ.get("ROUNDS", "4"))
SEED = int(os.environ.get("SEED", "5"))
SECONDS_PER_ROUND = 1200.0
LONGEST_WAIT_BEFORE_KILL = 40.0
VICTIMS = ("worker", "webserver", "daemon", "server")


@contextmanager
def watched(running: Running) -> Iterator[Sequence[str]]:
    """What clients of the live slot could have got meanwhile, read four times a second."""
    fleet = running.resources.fleet
    seen: list[str] = []

    def look() -> None:
        # The server may have been killed a moment ago.
        with suppress(LoraAssetsError):
            for digest in fleet.discover().serving(fleet.live_slot).values():
                if digest is not None and digest not in seen[-1:]:
                    seen.append(digest)

    with meanwhile(look, 0.25):
        yield seen


def test_versions_reach_their_end_through_kills(running: Running) -> None:
    chance = random.Random(SEED)
    killed: dict[str, int] = dict.fromkeys(VICTIMS, 0)
    names = [str(number) for number in range(1, ROUNDS + 1)]
    with watched(running) as seen:
        for number, name in enumerate(names):
            drop(running.settings.s3_data_bucket, name, 8 * number, spoiled=number % 3 == 2)
            victim = VICTIMS[number % len(VICTIMS)]
            if victim == "worker":
                running.wait_for(lambda: bool(running.workers()), SECONDS_PER_ROUND)
            # For nothing: the kill is to come at any moment.
            time.sleep(chance.uniform(0, LONGEST_WAIT_BEFORE_KILL))
            hit = running.kill(victim)
            assert hit or victim == "worker", f"{victim} had ended by itself"
            killed[victim] += hit
            if victim != "worker":
                running.parts[victim].start()
            running.wait_for(running.is_settled, SECONDS_PER_ROUND)
    print(f"kills in {ROUNDS} rounds: {killed}")
    progress = {each.data_version: each for each in read_progress(running.instance, names)}
    promoted = [name for name in names if PROMOTION in progress[name].made]
    stopped = [name for name in names if stopped_by(progress[name]) is not None]
    assert sorted({*promoted, *stopped}, key=version_order) == names
    # One kill per round: three attempts are enough for every version.
    assert not any(running.gave_up(name) for name in names), running.state()
    nothing_is_launched_twice(running.runs())
    live = running.resources.registry.aliases()["live"]
    assert live.data_version == max(promoted, key=version_order)
    digests = {running.resources.registry.newest(name): name for name in promoted}
    known = {version.digest: name for version, name in digests.items() if version is not None}
    order = [known[digest] for digest in seen]
    assert all(version_order(a) < version_order(b) for a, b in pairwise(order))
    assert order[-1] == live.data_version


def nothing_is_launched_twice(runs: Sequence[dg.RunRecord]) -> None:
    """One run per key, no work done again, no two runs of one data version at the same time."""
    keys = [record.dagster_run.tags["dagster/run_key"] for record in runs]
    assert len(keys) == len(set(keys))
    done = [r.dagster_run.tags[CAUSE_TAG] for r in runs if r.dagster_run.is_success]
    assert len(done) == len(set(done))
    by_version: dict[str, list[tuple[float, float]]] = {}
    for record in runs:
        assert record.start_time is None or record.end_time is not None
        if record.start_time is not None and record.end_time is not None:
            name = record.dagster_run.tags["dagster/partition"]
            by_version.setdefault(name, []).append((record.start_time, record.end_time))
    for spans in by_version.values():
        assert all(first[1] <= then[0] for first, then in pairwise(sorted(spans)))
