"""Seconds until a foreign or a stale adapter under one of our names is seen, and until it is gone.

    python -m benchmarks.drift [--rounds 3]

Over a real daemon, webserver, code server and embedded server with the sensors on, nobody
touching anything. Foreign is what live's own name serves from outside of the adapters folder;
stale is the live slot at what was live before.
"""

import argparse
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.automation import show
from lora_assets.records.model_version import ModelVersion
from lora_assets.records.served import LIVE_SLOT
from lora_assets.sensors.history import unfinished_runs
from lora_assets.sensors.replica_repair import find_drift, repair_replicas, replica_repair
from tests.support.dagster_processes import Running
from tests.support.promotions import promote, stage
from tests.support.random_adapters import save_standard_adapter

SEEN, GONE = 30, 60
PATIENCE = 600.0


def make_live(running: Running) -> tuple[ModelVersion, ModelVersion]:
    """Two versions, of which the second is live and the first was before it."""
    made = []
    for number in (1, 2):
        made.append(
            stage(
                running.resources,
                save_standard_adapter(running.home / f"made-{number}", number),
                str(number),
            )
        )
        promote(running.resources, str(number))
    return made[0], made[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory() as home:
        running = Running(Path(home))
        registry, fleet = running.resources.registry, running.resources.fleet

        def foreign() -> None:
            (replica,) = fleet.discover().members
            elsewhere = Path(home, "attacker", live.digest)
            shutil.copytree(Path(fleet.adapters_dir, before.digest), elsewhere, dirs_exist_ok=True)
            replica.unload(live.serving_name)
            replica.load(live.serving_name, str(elsewhere))

        def stale() -> None:
            (replica,) = fleet.discover().members
            replica.folder.set_slot(LIVE_SLOT, before.serving_name)

        def is_right() -> bool:
            return not find_drift(registry, fleet, fleet.discover().served())

        def measure(spoil: Callable[[], None]) -> tuple[float, float]:
            spoil()
            began = time.time()
            assert not is_right()
            running.wait_for(is_right, PATIENCE)
            gone = time.time() - began
            # The run is still at it, and would find the next fault.
            running.wait_for(lambda: not unfinished_runs(running.instance), PATIENCE)
            seen = [
                record.create_timestamp.timestamp() - began
                for record in running.runs()
                if record.dagster_run.job_name == repair_replicas.name
            ][-1]
            return seen, gone

        try:
            running.start_all()
            before, live = make_live(running)
            running.switch_on(replica_repair().name)
            running.wait_for(is_right, PATIENCE)
            for spoil in (foreign, stale):
                seen, gone = zip(*(measure(spoil) for _ in range(rounds)), strict=True)
                show(f"{spoil.__name__}: seen", seen, f"(at most {SEEN})")
                show(f"{spoil.__name__}: gone", gone, f"(at most {GONE})")
        finally:
            running.stop()


if __name__ == "__main__":
    main()
