"""How often the performance gate is wrong about a real server: A/A tests and a planted slowdown.

    [VLLM_PYTHON=…] python -m benchmarks.perf_servers [--runs 40] [--json]

One server on 127.0.0.1 (the embedded one, or vLLM on the CPU) has the same adapter under three
names: `live`, `same` and `slow`, for which each of its steps takes longer by `--slower`. `same`
and `slow` are load-tested against `live` in turn, by the load test's own clients, blocks and rule
`paired`, and the gate decides. Each run has prompts of its own.
"""

import argparse
import asyncio
import json
import math
import os
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from statistics import geometric_mean, median
from typing import Any

from benchmarks.perf_gate import RULE, decision
from benchmarks.slowdown import slowed
from lora_assets.embedded.child import is_healthy, start_child
from lora_assets.embedded.server import process
from lora_assets.embedded.server.batching import Engine
from lora_assets.embedded.server.calls import Asked, Call
from lora_assets.embedded.server.decoder import Decoder
from lora_assets.embedded.server.options import ServerOptions
from lora_assets.embedded.vllm_server import vllm_command
from lora_assets.gates.performance import ratio_interval
from lora_assets.gates.sequential import nominal_confidence
from lora_assets.load_test.generator import LoadTest
from lora_assets.load_test.ratios import Alternation
from lora_assets.serving.http_client import open_client
from tests.support.random_adapters import save_standard_adapter
from tests.support.replicas import kill_family
from tests.support.stack import free_port

LIVE, SAME, SLOW = "live", "same", "slow"
CLIENTS, BLOCKS_A_PASS, MAX_BLOCKS, TOKENS = 2, 6, 24, 4
START_SECONDS = 1800


def serve(options: ServerOptions, slower: float) -> None:
    """Serve as the embedded server does, but each step for `slow` takes longer by that share."""
    is_slow = False

    submit = Engine.submit

    def submitted(self: Engine, asked: Asked, arrived: float) -> Call:
        nonlocal is_slow
        # A block of a load test has one adapter alone.
        is_slow = asked.adapter is not None and asked.adapter.name == SLOW
        return submit(self, asked, arrived)

    def slow(step: Callable[..., Any]) -> Callable[..., Any]:
        return lambda *given: slowed(partial(step, *given), slower if is_slow else 0.0)

    for name in ("prefill", "decode"):
        setattr(Decoder, name, slow(getattr(Decoder, name)))
    Engine.submit = submitted  # type: ignore[method-assign]
    process.serve(options)


@contextmanager
def server(folder: Path, slower: float) -> Iterator[str]:
    """Yield the URL of a server with the three names."""
    adapters = folder / "adapters"
    adapter = save_standard_adapter(adapters / "adapter", seed=0)
    names = {name: adapter for name in (LIVE, SAME, SLOW)}
    options = ServerOptions(port=free_port(), adapters_dir=adapters, lora_modules=names)
    environment: Mapping[str, str]
    if python := os.environ.get("VLLM_PYTHON"):
        command, given = vllm_command(python, options)
        command.append("--worker-cls=benchmarks.slow_vllm.SlowWorker")
        path = os.pathsep.join([given["PYTHONPATH"], str(Path(__file__).parents[1])])
        planted = {"SLOW_ADAPTER": SLOW, "SLOWER_BY": str(slower), "PYTHONPATH": path}
        environment = {**given, **planted}
    else:
        serving = ["--serve", options.model_dump_json(), "--slower", str(slower)]
        command = [sys.executable, "-m", "benchmarks.perf_servers", *serving]
        environment = os.environ
    log = folder / "server.log"
    with log.open("wb") as output:
        child = start_child(command, environment, output)
    url = f"http://127.0.0.1:{options.port}"
    try:
        if not is_healthy(child, url, START_SECONDS):
            raise SystemExit(f"The server did not start: {log.read_text()[-3000:]}")
        yield url
    finally:
        if child.poll() is None:
            kill_family(child.pid)


async def run(url: str, name: str, number: int) -> Mapping[str, Any]:
    """Return what a load test of `name` against live came to."""
    prompts = [
        f"{number}.{each}: which of the operations of this service returns the items of a list?"
        for each in range(BLOCKS_A_PASS * 4 * CLIENTS)
    ]
    test = LoadTest([name, LIVE], prompts, CLIENTS, TOKENS)
    turns = Alternation(name, LIVE, RULE, MAX_BLOCKS)
    async with open_client(url, 120) as client:
        await test.warm_up(client)
        loads = await turns.run(test, client, lambda: lambda done, total: None)
    blocks = turns.looks.at[-1]
    ratios = {each.measure: each for each in turns.ratios}
    at = nominal_confidence(turns.looks, RULE.confidence)
    return {
        "outcome": decision(loads[name], loads[LIVE], turns).outcome,
        "slower for sure": ratio_interval(ratios["p95_latency"], blocks, at)[0] > 1,
        "blocks": blocks,
        "noise": ratios["p95_latency"].error * math.sqrt(blocks),
        **{measure: ratio.value for measure, ratio in ratios.items()},
    }


def summary(runs: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    outcomes = Counter(each["outcome"] for each in runs)
    measures = ("p95_latency", "p95_ttft", "throughput")
    return {
        "runs": len(runs),
        **{name: outcomes[name] for name in ("passed", "failed", "inconclusive")},
        "slower for sure": sum(each["slower for sure"] for each in runs),
        "blocks, median": median(each["blocks"] for each in runs),
        "blocks, most": max(each["blocks"] for each in runs),
        "noise, median": median(each["noise"] for each in runs),
        **{measure: geometric_mean([each[measure] for each in runs]) for measure in measures},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--runs", type=int, default=40)
    parser.add_argument("--slower", type=float, default=0.15)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        serve(ServerOptions.model_validate_json(arguments.serve), arguments.slower)
        return
    found: dict[str, list[Mapping[str, Any]]] = {SAME: [], SLOW: []}
    loads = []
    with tempfile.TemporaryDirectory() as folder, server(Path(folder), arguments.slower) as url:
        for number in range(arguments.runs):
            for name, runs in found.items():
                runs.append(asyncio.run(run(url, name, number)))
                print(f"{number + 1} {name}: {runs[-1]}", file=sys.stderr, flush=True)
            loads.append(os.getloadavg()[0])
    summaries = {name: summary(runs) for name, runs in found.items()}
    if arguments.json:
        print(json.dumps({**summaries, "load": [min(loads), max(loads)]}))
        return
    for name, each in summaries.items():
        print(f"{name}: " + ", ".join(f"{key} {value:.3g}" for key, value in each.items()))
    print(f"load {min(loads):.1f} to {max(loads):.1f}; a block has {4 * CLIENTS} requests a side")


if __name__ == "__main__":
    main()
