"""Seconds that commands take to start, beside `import mlflow` of the same minute.

    python -m benchmarks.start_up [--json]

Each is run three times, in a home of its own; the median counts. CPU seconds are the figure to
compare between machines that have other things to do.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence

TIMES = 3
COMMANDS: Mapping[str, Sequence[str]] = {
    "lora-assets --help": ("-m", "lora_assets.cli.main", "--help"),
    "lora-assets status": ("-m", "lora_assets.cli.main", "status"),
    "import lora_assets.definitions": ("-c", "import lora_assets.definitions"),
    "import mlflow": ("-c", "import mlflow"),
}


def measure(arguments: Sequence[str], home: str) -> tuple[float, float]:
    """Wall seconds and CPU seconds of one Python process, whatever it ends with.

    `status` ends with 1 where nothing is served yet.
    """
    environment = {**os.environ, "LORA_ASSETS_HOME": home}
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run([sys.executable, *arguments], env=environment, capture_output=True, check=False)
    wall, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--json", action="store_true")
    as_json = parser.parse_args().json
    rows = {}
    with tempfile.TemporaryDirectory() as home:
        for name, arguments in COMMANDS.items():
            walls, cpus = zip(*(measure(arguments, home) for _ in range(TIMES)), strict=True)
            rows[name] = {"seconds": statistics.median(walls), "cpu": statistics.median(cpus)}
    if as_json:
        print(json.dumps(rows))
        return
    for name, row in rows.items():
        print(f"{name:<32}{row['seconds']:6.2f} s, {row['cpu']:5.2f} s CPU")


if __name__ == "__main__":
    main()
