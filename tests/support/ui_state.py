"""A state to look at: version 1 live, 2 compared with it, 6 stopped, the rest untouched."""

from collections.abc import Mapping
from typing import Any

import pytest

from lora_assets.definitions import make_definitions
from lora_assets.embedded.data_set.versions import contents
from lora_assets.local.instance import add_partitions, open_instance
from lora_assets.local.run import run_in_process
from lora_assets.records.dataset import SplitName
from lora_assets.records.run_outcome import RunFailed
from lora_assets.settings import read_settings
from lora_assets.stack_resources import make_resources

UNTOUCHED = ("3", "4")
BROKEN = "5"
"""Its eval split is truncated, so that its run fails."""

STOPPED = "6"
"""Its quality gate asks for what no adapter has."""

ROWS: Mapping[SplitName, int] = {"train": 96, "val": 24, "eval": 24}
LAX: Mapping[str, Mapping[str, Any]] = {
    "adapter_quality_gate": {"max_eval_loss": 100, "max_perplexity": 100},
    "eval_grades_eval_gate": {"min_a_rate": 0, "max_c_rate": 1, "min_refusal_rate": 0},
    "perf_metrics_perf_gate": {"max_p95_latency": 60, "max_p95_ttft": 60, "min_throughput": 0.01},
}
"""So little data makes no good adapter, and this machine may be busy."""


def fill(environment: Mapping[str, str]) -> None:
    """Take version 1 through the whole graph; version 2, trained longer, to its evaluation."""
    settings = read_settings(environment)
    bucket, whole = make_resources(settings).data_bucket, contents(["s3"])
    few = {split: b"".join(whole[split].splitlines(True)[:rows]) for split, rows in ROWS.items()}
    for name in ("1", "2", *UNTOUCHED, STOPPED):
        bucket.add(name, few)
    bucket.add(BROKEN, {**few, "eval": few["eval"][:-10]})
    instance = open_instance(settings.dagster_home, managed=True)
    add_partitions(instance, ["1", "2", *UNTOUCHED, BROKEN, STOPPED])
    definitions = make_definitions(settings)

    def run(job: str, data_version: str, **config: Mapping[str, Any]) -> None:
        selected = definitions.resolve_job_def(job)
        names = {node.name for node in selected.graph.nodes}
        ops = {name: value for name, value in {**LAX, **config}.items() if name in names}
        run_in_process(instance, selected, data_version, ops)

    run("lifecycle", "1", adapter={"num_epochs": 1})
    run("train", "2", adapter={"num_epochs": 2})
    run("deploy", "2")
    # Whether it beats live is not what is looked at.
    run("evaluate", "2", eval_grades_eval_gate={"min_refusal_rate": 0})
    with pytest.raises(RunFailed, match="quality_gate stopped it"):
        run("train", STOPPED, adapter={"num_epochs": 1}, adapter_quality_gate={"max_perplexity": 1})
