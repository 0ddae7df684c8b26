"""Time and memory of the demo, from an empty home: `python -m benchmarks.demo`.

Prints seconds in all, the share that is the platform's own (everything but training, answering,
grading and the load test, so also what the steps of these do before and after), and the peak
memory of all its processes together.
"""

import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from dagster import DagsterInstance

AT_WORK = re.compile(r"^loading |: warming up |\b\d+ of \d+\b")


def resident(root: int) -> int:
    """Bytes resident in a process and its descendants."""
    parents: dict[int, int] = {}
    sizes: dict[int, int] = {}
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        try:
            stat = (folder / "stat").read_text().rpartition(")")[2].split()
            pages = int((folder / "statm").read_text().split()[1])
        except (FileNotFoundError, ProcessLookupError):
            continue
        parents[int(folder.name)] = int(stat[1])
        sizes[int(folder.name)] = pages * os.sysconf("SC_PAGE_SIZE")
    family, grown = {root}, True
    while grown:
        children = {pid for pid, parent in parents.items() if parent in family} - family
        family |= children
        grown = bool(children)
    return sum(sizes.get(pid, 0) for pid in family)


def at_work(home: Path) -> float:
    """Seconds of training, answering, grading and load test, by the messages of Dagster's runs.

    Of each step it is the time from its first message of progress to its last ("trained 400 of
    400 steps"). That of training begins as it loads PyTorch and the base model, which every
    training does.
    """
    times: dict[tuple[str, str], list[float]] = {}
    with DagsterInstance.from_config(str(home / "dagster")) as instance:
        for run in instance.get_runs():
            for entry in instance.all_logs(run.run_id):
                if entry.step_key and AT_WORK.search(entry.user_message):
                    times.setdefault((run.run_id, entry.step_key), []).append(entry.timestamp)
    return sum(max(told) - min(told) for told in times.values())


def main() -> None:
    with tempfile.TemporaryDirectory() as home, tempfile.TemporaryFile("w+") as output:
        started = time.monotonic()
        demo = subprocess.Popen(
            [sys.executable, "-m", "lora_assets.cli.main", "demo"],
            env={**os.environ, "LORA_ASSETS_HOME": home},
            stdout=output,
            stderr=output,
        )
        peak = 0
        while demo.poll() is None:
            peak = max(peak, resident(demo.pid))
            time.sleep(0.5)
        seconds = time.monotonic() - started
        output.seek(0)
        print(output.read())
        work = at_work(Path(home))
    print(f"exit status         {demo.returncode}")
    print(f"in all              {seconds:.0f} s (at most 360)")
    print(f"the platform's part {1 - work / seconds:.1%} (at most 15 %)")
    print(f"peak memory         {peak / 2**30:.2f} GiB (at most 4)")


if __name__ == "__main__":
    main()
