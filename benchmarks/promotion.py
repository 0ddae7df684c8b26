"""Seconds of a rollback between two loaded adapters, against the raw API calls of one.

    python -m benchmarks.promotion [--rounds 20] [--during idle|evaluation|load|down]

A rollback is the whole run of Dagster's job `rollback`: registry, slot, probes, aliases. The
raw calls are those of the specification's script: unload the slot, load it from the other
folder, list what is served. Meanwhile another process evaluates a candidate again and again, or
ten clients ask live, or a second replica is down. With VLLM_PYTHON set real vLLM serves, else
the embedded server.
"""

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing import get_context
from multiprocessing.context import SpawnProcess
from pathlib import Path

import dagster as dg
import httpx

from lora_assets.assets.eval_grades import eval_grades
from lora_assets.assets.rollback import rollback
from lora_assets.assets.served import ensure_loaded
from lora_assets.assets.staged_deployment import staged_deployment
from lora_assets.assets.training_data import training_data
from lora_assets.embedded.child import is_healthy, start_child
from lora_assets.embedded.data_set.versions import contents
from lora_assets.errors import LoraAssetsError
from lora_assets.records.model_version import Alias, ModelVersion
from lora_assets.records.served import LIVE_SLOT
from lora_assets.records.training import Adapter, TrainingMetrics
from lora_assets.serving.vllm_plugin.adapters_folder import digest_folder
from lora_assets.settings import EMBEDDED_BASE_NAME, read_settings
from lora_assets.stack_resources import Resources, make_resources
from tests.support.promotions import gate_result, stage
from tests.support.random_adapters import save_standard_adapter
from tests.support.stack import free_port


def make_version(resources: Resources, folder: Path, seed: int) -> ModelVersion:
    """A registered adapter with random weights."""
    save_standard_adapter(folder, seed)
    with resources.tracking.run("benchmark", "training", folder.name, {}) as run:
        run.folder(folder, "adapter")
    metrics = TrainingMetrics(
        final_eval_loss=None,
        final_perplexity=None,
        tokens_per_second=0,
        steps=0,
        best_step=0,
        rows_left_out={},
        curve=(),
    )
    return resources.registry.register(
        Adapter(
            digest=digest_folder(folder),
            data_version=str(seed),
            data_digest="0" * 64,
            base_model=EMBEDDED_BASE_NAME,
            lora_config="standard",
            mlflow_run_id=run.run_id,
            metrics=metrics,
        )
    )


def roll_back(resources: Resources, to: int) -> float:
    """Seconds of one run of Dagster's job `rollback`, which gives live to version `to`."""
    definitions = dg.Definitions(jobs=[rollback], resources=vars(resources))
    job = definitions.resolve_job_def(rollback.name)
    with dg.DagsterInstance.ephemeral() as instance:
        began = time.perf_counter()
        job.execute_in_process(
            instance=instance, run_config={"ops": {"roll_back": {"config": {"to": to}}}}
        )
        return time.perf_counter() - began


def evaluate_for_ever(environment: dict[str, str]) -> None:
    """Evaluate the newest candidate of data version 3, in this process, afresh each time."""
    os.environ.update(environment)
    resources = make_resources(read_settings(environment))
    while True:
        # Live changes under it, which it refuses: then it begins again.
        with suppress(LoraAssetsError), dg.DagsterInstance.ephemeral() as instance:
            instance.add_dynamic_partitions("data_version", ["3"])
            dg.materialize(
                [training_data, gate_result, staged_deployment, eval_grades],
                instance=instance,
                partition_key="3",
                resources=vars(resources),
                run_config={"ops": {"eval_grades": {"config": {"fresh": True}}}},
            )


def ask_for_ever(url: str) -> None:
    """Ask live as a load test of ten clients does."""
    body = {"model": LIVE_SLOT, "prompt": "What does PutItem do?", "max_tokens": 256}
    with httpx.Client(base_url=url, timeout=120) as client:
        while True:
            client.post("/v1/completions", json={**body, "ignore_eos": True})


@contextmanager
def meanwhile(during: str, resources: Resources, environment: dict[str, str]) -> Iterator[None]:
    """Have the server busy with that, from a quarter of a minute before the block on."""
    processes: list[SpawnProcess] = []
    start = get_context("spawn").Process
    if during == "evaluation":
        resources.data_bucket.add("3", contents(["s3"]))
        candidate = Path(environment["LORA_ASSETS_HOME"], "made-3")
        save_standard_adapter(candidate, 3)
        stage(resources, candidate, "3")
        processes = [start(target=evaluate_for_ever, args=(environment,))]
    elif during == "load":
        url = resources.fleet.vllm_url
        processes = [start(target=ask_for_ever, args=(url,)) for _ in range(10)]
    for process in processes:
        process.start()
    try:
        if processes:
            time.sleep(15)
        yield
    finally:
        for process in processes:
            assert process.is_alive(), f"the {during} ended by itself"
            process.kill()


def reload_slot(url: str, folder: Path) -> float:
    """Seconds of the raw calls that put the adapter in `folder` into a slot."""
    began = time.perf_counter()
    with httpx.Client(base_url=url, timeout=60) as client:
        client.post("/v1/unload_lora_adapter", json={"lora_name": "raw"})
        body = {"lora_name": "raw", "lora_path": str(folder)}
        client.post("/v1/load_lora_adapter", json=body).raise_for_status()
        client.get("/v1/models").raise_for_status()
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--during", choices=["idle", "evaluation", "load", "down"], default="idle")
    given = parser.parse_args()
    rounds = given.rounds
    with tempfile.TemporaryDirectory() as home:
        url = f"http://127.0.0.1:{free_port()}"
        environment = {
            **os.environ,
            "LORA_ASSETS_HOME": home,
            "VLLM_URL": url,
            "JUDGE_URL": f"{url}/judge",
        }
        resources = make_resources(read_settings(environment))
        versions = [make_version(resources, Path(home) / f"made-{n}", n) for n in (1, 2)]
        command = [sys.executable, "-m", "lora_assets.cli.main", "serve"]
        with Path(home, "server.log").open("wb") as log:
            server = start_child(command, environment, log)
        try:
            if not is_healthy(server, url, 300):
                raise SystemExit("The server did not start.")
            aliases: tuple[Alias, Alias] = ("live", "previous")
            for alias, version in zip(aliases, versions, strict=True):
                ensure_loaded(
                    resources.registry, resources.fleet.discover(), version, resources.work_folder
                )
                resources.registry.set_alias(alias, version)
            live = versions[0]
            resources.fleet.discover().renew_slot(LIVE_SLOT, live.serving_name, live.digest)
            if given.during == "down":
                both = f"{url},http://127.0.0.1:{free_port()}"
                resources = make_resources(read_settings({**environment, "VLLM_REPLICAS": both}))
            # By name: without one, a second rollback has nothing to do.
            with meanwhile(given.during, resources, environment):
                ours = [roll_back(resources, versions[(n + 1) % 2].version) for n in range(rounds)]
            folders = [Path(resources.fleet.adapters_dir) / v.digest for v in versions]
            raw = [reload_slot(url, folders[n % 2]) for n in range(rounds)]
        finally:
            server.terminate()
            server.wait()
    print(f"rollback   median {statistics.median(ours):.2f} s, longest {max(ours):.2f} s")
    print(f"raw calls  median {statistics.median(raw):.2f} s, longest {max(raw):.2f} s")
    more = statistics.median(ours) - statistics.median(raw)
    print(f"more       {more:.2f} s (at most 2)")


if __name__ == "__main__":
    main()
