"""Seconds to deploy an adapter to a fleet of embedded servers, against one replica of it.

    python -m benchmarks.fleet [--replicas 16] [--rounds 5]

A deployment is what `staged_deployment` does: fetch the adapter from the registry, place it,
load it on every replica under its own name, probe it, renew the candidate slot and probe that.
Each round deploys a new adapter to one replica, and another one to all of them; the adapters of
the round before are removed in between, which is not counted.

A replica has a machine of its own; here all share one. So each server is held to its equal share
of the cores, whether the others work or not, by Debian's cpulimit: else the one replica would have
all of them, and the ratio would tell how many servers' forward passes this machine does at once.
"""

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from benchmarks.promotion import make_version
from lora_assets.assets.served import ensure_loaded
from lora_assets.embedded.child import is_healthy, start_child
from lora_assets.records.model_version import ModelVersion
from lora_assets.settings import read_settings
from lora_assets.stack_resources import Resources, make_resources
from tests.support.stack import free_port


@contextmanager
def held_to(percent: int, pids: Sequence[int]) -> Iterator[None]:
    """Each process with that much of a core (100: one core) for as long as the block."""
    limits = [
        subprocess.Popen(["cpulimit", "--quiet", "--limit", str(percent), "--pid", str(pid)])
        for pid in pids
    ]
    try:
        yield
    finally:
        for limit in limits:
            limit.terminate()
        for limit in limits:
            limit.wait()


@contextmanager
def servers(home: Path, count: int) -> Iterator[Sequence[str]]:
    """The URLs of that many healthy servers, which share one adapters folder and the cores."""
    started: list[tuple[subprocess.Popen[bytes], str]] = []
    try:
        for number in range(count):
            url = f"http://127.0.0.1:{free_port()}"
            environment = {**os.environ, "LORA_ASSETS_HOME": str(home), "VLLM_URL": url}
            command = [sys.executable, "-m", "lora_assets.cli.main", "serve"]
            with (home / f"server-{number}.log").open("wb") as log:
                started.append((start_child(command, environment, log), url))
        for server, url in started:
            if not is_healthy(server, url, 600):
                raise SystemExit(f"The server at {url} did not start.")
        share = 100 * len(os.sched_getaffinity(0)) // count
        with held_to(share, [server.pid for server, _ in started]):
            yield [url for _, url in started]
    finally:
        for server, _ in started:
            server.terminate()
        for server, _ in started:
            server.wait()


def deploy(resources: Resources, version: ModelVersion) -> float:
    """Seconds until every replica serves `version` in the candidate slot."""
    fleet = resources.fleet
    began = time.perf_counter()
    ensure_loaded(resources.registry, fleet.discover(), version, resources.work_folder)
    fleet.discover().renew_slot(fleet.candidate_slot, version.serving_name, version.digest)
    took = time.perf_counter() - began
    assert set(fleet.discover().serving(fleet.candidate_slot).values()) == {version.digest}
    return took


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--replicas", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    if shutil.which("cpulimit") is None:
        raise SystemExit("cpulimit is missing: install Debian's package of that name.")
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        settings = read_settings({**os.environ, "LORA_ASSETS_HOME": folder})
        first = make_resources(settings)
        made = [make_version(first, home / f"made-{n}", n) for n in range(2 * options.rounds)]
        with servers(home, options.replicas) as urls:
            one = make_resources(settings.model_copy(update={"replica_urls": tuple(urls[:1])}))
            every = make_resources(settings.model_copy(update={"replica_urls": tuple(urls)}))
            alone: list[float] = []
            together: list[float] = []
            for number in range(options.rounds):
                alone.append(deploy(one, made[2 * number]))
                together.append(deploy(every, made[2 * number + 1]))
                every.fleet.discover().retire([])
    print(f"1 replica     median {statistics.median(alone):.2f} s, longest {max(alone):.2f} s")
    count = f"{options.replicas} replicas".ljust(13)
    print(f"{count} median {statistics.median(together):.2f} s, longest {max(together):.2f} s")
    ratio = statistics.median(together) / statistics.median(alone)
    print(f"ratio         {ratio:.1f} (at most 3)")


if __name__ == "__main__":
    main()
