"""Seconds from a new data version to its first run, and from its gates to what follows.

    python -m benchmarks.automation [--versions 3]

Over a real daemon, webserver, code server and embedded server, nobody touching anything. A run
is launched when its record is made; between that and its start lies Dagster's own launch.
"""

import argparse
import itertools
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import dagster as dg

from tests.support.dagster_processes import Running
from tests.support.data_versions import drop

LIMIT = 10.0
SECONDS = 1200.0


def gate_to_next_step(running: Running, run: dg.RunRecord) -> list[float]:
    """Seconds from each passed gate's decision to the start of the next step of its run."""
    kinds = {dg.DagsterEventType.ASSET_CHECK_EVALUATION, dg.DagsterEventType.STEP_START}
    entries = running.instance.all_logs(run.dagster_run.run_id, of_type=kinds)
    found: list[float] = []
    for number, entry in enumerate(entries):
        if entry.get_dagster_event().event_type != dg.DagsterEventType.ASSET_CHECK_EVALUATION:
            continue
        later = [
            e.timestamp - entry.timestamp
            for e in entries[number + 1 :]
            if e.get_dagster_event().event_type == dg.DagsterEventType.STEP_START
        ]
        found += later[:1]
    return found


def show(what: str, seconds: Sequence[float], limit: str = "") -> None:
    """One line of the report."""
    median, longest = statistics.median(seconds), max(seconds)
    print(f"{what:<44} median {median:6.2f} s, longest {longest:6.2f} s {limit}")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--versions", type=int, default=3)
    names = [str(n) for n in range(1, parser.parse_args().versions + 1)]
    dropped: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as home:
        running = Running(Path(home))
        try:
            running.start_all()
            for number, name in enumerate(names):
                drop(running.settings.s3_data_bucket, name, 40 * number)
                dropped[name] = time.time()
                running.wait_for(running.is_settled, SECONDS)
            runs: dict[str, list[dg.RunRecord]] = {name: [] for name in names}
            for record in running.runs():
                runs[record.dagster_run.tags["dagster/partition"]].append(record)
            first = [found[0] for found in runs.values()]
            pairs = [pair for found in runs.values() for pair in itertools.pairwise(found)]
            created = [r.create_timestamp.timestamp() for r in first]
            started = [r.start_time or 0.0 for r in first]
            show(
                "new version to the start of its first run",
                [s - t for s, t in zip(started, dropped.values(), strict=True)],
                f"(at most {LIMIT:.0f})",
            )
            show("of it Dagster's launch", [s - c for s, c in zip(started, created, strict=True)])
            show(
                "end of training to the launch of serving",
                [b.create_timestamp.timestamp() - (a.end_time or 0.0) for a, b in pairs],
                f"(at most {LIMIT:.0f})",
            )
            steps = [
                s for found in runs.values() for r in found for s in gate_to_next_step(running, r)
            ]
            show("gate passed to the next step in its run", steps, f"(at most {LIMIT:.0f})")
        finally:
            running.stop()


if __name__ == "__main__":
    main()
