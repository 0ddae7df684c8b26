"""Seconds and memory of the sensor's tick over a thousand data versions with their histories.

    python -m benchmarks.sensor_tick [--versions 1000] [--ticks 200]

A real Dagster instance (SQLite), bucket (folder) and registry (MLflow on SQLite). Of ten versions
eight are finished, one was stopped by the eval gate, one waits for its promotion behind live. Each
has the two runs that the sensor would have launched, and every twenty were a backfill once.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from uuid import uuid4

import dagster as dg
import psutil
from dagster._core.definitions.asset_checks.asset_check_evaluation import (
    AssetCheckEvaluationTargetMaterializationData,
)
from dagster._core.execution.backfill import BulkActionStatus
from mlflow import MlflowClient

from lora_assets.automation.next_run import CAUSE_TAG
from lora_assets.definitions import make_definitions
from lora_assets.lifecycle import STAGES
from lora_assets.local.instance import open_instance
from lora_assets.records.model_version import ModelVersion
from lora_assets.records.progress import PARTITION_TAG
from lora_assets.records.verdict import Check, Verdict
from lora_assets.resources.data_bucket import PROCESSED
from lora_assets.sensors.history import PHASE_TAG
from lora_assets.settings import read_settings
from lora_assets.stack_resources import Resources, make_resources
from tests.support.backfills import requested

MAX_TICK = 2.0
BACKFILLED_AT_ONCE = 20
RUN_ID = "0" * 32
WARM_UP = 0.25
"""Share of the ticks after which memory has to be flat."""


def report_history(instance: dg.DagsterInstance, version: str, stopped: bool) -> None:
    """Every asset made and every gate passed, but for the eval gate of a version it stopped."""
    for asset, stage in STAGES.items():
        key = dg.AssetKey(asset)
        instance.report_runless_asset_event(dg.AssetMaterialization(key, partition=version))
        if stage.gate is None:
            continue
        storage_ids = instance.event_log_storage.get_latest_storage_id_by_partition(
            key, dg.DagsterEventType.ASSET_MATERIALIZATION, {version}
        )
        passed = not (stopped and stage.gate.name == "eval_gate")
        instance.report_runless_asset_event(
            dg.AssetCheckEvaluation(
                asset_key=key,
                check_name=stage.gate.name,
                passed=passed,
                partition=version,
                target_materialization_data=AssetCheckEvaluationTargetMaterializationData(
                    storage_id=storage_ids[version], run_id="", timestamp=time.time()
                ),
            )
        )
        if not passed or (asset == "perf_metrics" and int(version) % 10 == 1):
            return


def report_runs(instance: dg.DagsterInstance, version: str) -> None:
    """The runs of both phases, as ended."""
    first = {stage.phase: stage.asset for stage in reversed([*STAGES.values()])}
    for phase, asset in first.items():
        cause = f"{version}/{asset}/0"
        instance.run_storage.add_run(
            dg.DagsterRun(
                job_name="lifecycle",
                run_id=str(uuid4()),
                status=dg.DagsterRunStatus.SUCCESS,
                tags={
                    CAUSE_TAG: cause,
                    PHASE_TAG: phase,
                    PARTITION_TAG: version,
                    "dagster/run_key": f"{cause}/1",
                },
            )
        )


def register(resources: Resources, names: Sequence[str]) -> None:
    """A model version of each, one in the middle of them live, all compared with it."""
    registry = resources.registry
    client = MlflowClient(registry.tracking_uri, registry.tracking_uri)
    client.create_registered_model(registry.model_name)
    digests = {name: f"{int(name):064x}" for name in names}
    live = names[len(names) // 2]
    for name in names:
        made = client.create_model_version(
            registry.model_name,
            source="file:///nowhere",
            run_id=RUN_ID,
            tags={
                "data.version": name,
                "data.digest": "0" * 64,
                "adapter.digest": digests[name],
            },
        )
        version = ModelVersion(
            model=registry.model_name,
            version=int(made.version),
            digest=digests[name],
            data_version=name,
            data_digest="0" * 64,
            run_id=RUN_ID,
        )
        if name == live:
            registry.set_alias("live", version)
        elif int(name) % 10 == 1:
            registry.store_verdict(version, eval_verdict(version, digests[live]))


def eval_verdict(version: ModelVersion, compared_with: str) -> Verdict:
    return Verdict(
        gate="eval_gate",
        digest=version.digest,
        compared_with=compared_with,
        data_version=version.data_version,
        data_digest=version.data_digest,
        judge=None,
        thresholds={},
        checks=(Check(name="a_rate", measured=1.0, comparison=">=", limit=0.7),),
        faults=(),
        evidence_run_id=None,
        decided_at="2026-01-01T00:00:00+00:00",
    )


def fill(
    resources: Resources,
    definitions: dg.Definitions,
    instance: dg.DagsterInstance,
    home: Path,
    versions: int,
) -> None:
    """Data versions in the bucket, in Dagster's history and in the registry; named from 0 on."""
    names = [str(number) for number in range(versions)]
    for name in names:
        folder = home / "bucket" / PROCESSED / name
        folder.mkdir(parents=True)
        for split in ("train", "val", "eval"):
            (folder / f"{split}.jsonl").touch()
    instance.add_dynamic_partitions("data_version", names)
    for name in names:
        report_history(instance, name, stopped=int(name) % 10 == 0)
        report_runs(instance, name)
    for first in range(0, versions, BACKFILLED_AT_ONCE):
        asked = names[first : first + BACKFILLED_AT_ONCE]
        backfill = requested(instance, definitions, f"from-{first}", asked)
        instance.add_backfill(backfill.with_status(BulkActionStatus.COMPLETED_SUCCESS))
    register(resources, names)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--versions", type=int, default=1000)
    parser.add_argument("--ticks", type=int, default=200)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as home:
        settings = read_settings({"LORA_ASSETS_HOME": home})
        resources = make_resources(settings)
        definitions = make_definitions(settings)
        with open_instance(settings.dagster_home, managed=True) as instance:
            fill(resources, definitions, instance, Path(home), options.versions)
            process = psutil.Process()
            seconds: list[float] = []
            memory: list[int] = []
            for _ in range(options.ticks):
                began = time.perf_counter()
                with dg.build_sensor_context(
                    instance=instance,
                    cursor="switched on",
                    definitions=definitions,
                    resources=vars(resources),
                ) as context:
                    definitions.resolve_sensor_def("new_data_versions")(context)
                seconds.append(time.perf_counter() - began)
                memory.append(process.memory_info().rss)
    warm = int(options.ticks * WARM_UP)
    grown = (memory[-1] - memory[warm]) / 2**20
    print(f"{options.versions} data versions, {options.ticks} ticks")
    print(
        f"tick    median {statistics.median(seconds):.3f} s, longest {max(seconds):.3f} s", end=""
    )
    print(f" (at most {MAX_TICK:.0f})")
    print(f"memory  {memory[-1] / 2**20:.0f} MiB, {grown:+.1f} MiB since tick {warm}")


if __name__ == "__main__":
    main()
