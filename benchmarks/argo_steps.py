"""CPU seconds and processes of Argo's light steps, on the double of a cluster.

    python -m benchmarks.argo_steps

Each step is the workflow's own command, which launches a run and follows it; the run has a pod,
and each of its steps has one too, except where the run's pod has room for them. Both are measured,
without and with the resources that deploy/dagster/values.yaml gives to a run. The last row is an
attempt that finds its run and follows it.
"""

import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.support.dagster_services import RUN_RESOURCES
from tests.support.kubernetes_cluster import DATA_VERSION, Cluster, serving_cluster

LOOSE: Mapping[str, Mapping[str, Any]] = {
    "adapter": {"num_epochs": 2, "evaluations": 4},
    "adapter_quality_gate": {"max_eval_loss": 100, "max_perplexity": 1e9},
}
"""A short training, and a gate that lets it pass: the steps after it are measured."""

STEPS: Mapping[str, tuple[str, ...]] = {
    "download-data": ("train", "--data-version", DATA_VERSION, "--step", "download-data"),
    "load-adapter": ("deploy", "--step", "load-adapter"),
    "smoke-test": ("deploy", "--step", "smoke-test"),
    "the same again": ("deploy", "--step", "smoke-test"),
}


def cpu_seconds() -> float:
    """Of this process's children that have ended: commands and pods, but none of Dagster's own."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def measure(cluster: Cluster, home: Path, arguments: tuple[str, ...]) -> tuple[float, int]:
    """CPU seconds of a step, and its processes: the command, the run, the run's steps."""
    pods, before = len(cluster.jobs.made), cpu_seconds()
    environment = {
        **os.environ,
        **cluster.environment,
        "LORA_ASSETS_HOME": str(home),
        "DAGSTER_URL": cluster.dagster.url,
        "LORA_ASSETS_REQUEST": arguments[-1],
    }
    command = [sys.executable, "-m", "lora_assets.cli.main", *arguments]
    subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL)
    cluster.jobs.wait_for(lambda: all(job.ended for job in cluster.jobs.made), "pods", 60)
    return cpu_seconds() - before, 1 + len(cluster.jobs.made) - pods


def rows(run_resources: Mapping[str, Any]) -> Mapping[str, tuple[float, int]]:
    """Each step's figures on a cluster of its own."""
    with (
        tempfile.TemporaryDirectory() as home,
        serving_cluster(Path(home), run_resources) as cluster,
    ):
        run = cluster.await_run(cluster.launch("train", LOOSE))
        assert run.is_success, f"the training ended as {run.status.value}"
        return {step: measure(cluster, Path(home), arguments) for step, arguments in STEPS.items()}


def main() -> None:
    own, shared = rows({}), rows(RUN_RESOURCES)
    print("step            a pod for each step          in the run's pod")
    for step, (seconds, processes) in own.items():
        print(
            f"{step:<16}{seconds:5.1f} s CPU, {processes} processes"
            f"    {shared[step][0]:5.1f} s CPU, {shared[step][1]} processes"
        )


if __name__ == "__main__":
    main()
