"""Time and memory of the demo, from an empty home: `python benchmarks/demo.py`.

Prints seconds in all, the share that is the platform's own (everything but training,
answering, grading and the load test), and the peak memory of all its processes together.
"""

import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

WORK = ("adapter ", "eval_grades ", "perf_metrics ")


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
        text = output.read()
    steps = re.findall(r"^ {2}(\w+ +)done in ([\d.]+) s$", text, re.MULTILINE)
    work = sum(float(took) for step, took in steps if step.startswith(WORK))
    print(text)
    print(f"exit status         {demo.returncode}")
    print(f"in all              {seconds:.0f} s (at most 360)")
    print(f"the platform's part {1 - work / seconds:.1%} (at most 15 %)")
    print(f"peak memory         {peak / 2**30:.2f} GiB (at most 4)")


if __name__ == "__main__":
    main()
