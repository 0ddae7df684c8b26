"""Materialising one partition from the command line, in this process."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any
from uuid import uuid4

import dagster as dg
from dagster import DagsterInstance
from sqlalchemy.exc import IntegrityError

from lora_assets.assets.partitions import data_versions
from lora_assets.cli.pool_wait import (
    PROCESS_TAG,
    fail_runs_of_dead_processes,
    this_process,
    waiting_told,
)
from lora_assets.environment import Settings
from lora_assets.errors import LoraAssetsError

_DAGSTER_YAML = Path(__file__).parent / "dagster.yaml"


class RunFailed(Exception):
    """A run ended without success; `reasons` has a line for each thing that stopped it."""

    def __init__(self, reasons: tuple[str, ...], gate: str | None) -> None:
        self.reasons = reasons
        self.gate = gate
        super().__init__("; ".join(reasons))


def open_instance(settings: Settings) -> DagsterInstance:
    """Dagster's storage, runs of dead processes marked as failed."""
    home = settings.dagster_home
    if settings.dagster_is_ours:
        home.mkdir(parents=True, exist_ok=True)
        _keep_dagster_yaml(home / "dagster.yaml")
    os.environ["DAGSTER_HOME"] = str(home)
    instance = DagsterInstance.from_config(str(home))
    fail_runs_of_dead_processes(instance)
    return instance


def add_partitions(instance: DagsterInstance, versions: Sequence[str]) -> None:
    """Make data versions partitions; those that are stay."""
    try:
        instance.add_dynamic_partitions(str(data_versions.name), versions)
    except IntegrityError:
        # Another command added one of them in the same moment: now it is left out.
        instance.add_dynamic_partitions(str(data_versions.name), versions)


def _keep_dagster_yaml(path: Path) -> None:
    """Our dagster.yaml at `path`, whole at any time: another command may be reading it."""
    with NamedTemporaryFile(dir=path.parent, prefix=".dagster.yaml.", delete=False) as aside:
        aside.write(_DAGSTER_YAML.read_bytes())
    Path(aside.name).replace(path)


def materialise(
    instance: DagsterInstance,
    job: dg.JobDefinition,
    data_version: str,
    ops: Mapping[str, Mapping[str, Any]],
) -> None:
    """Run `job` on one partition, `ops` holding the configuration of each op that has some.

    Raises RunFailed when a gate or an error stopped it.
    """
    add_partitions(instance, [data_version])
    run_id = str(uuid4())
    with waiting_told(instance, run_id):
        result = job.execute_in_process(
            instance=instance,
            partition_key=data_version,
            run_config={
                "ops": {op: {"config": dict(config)} for op, config in ops.items()},
                # Without its name here a job's own logger gives way to Dagster's default one.
                "loggers": {"console": {}},
            },
            tags={PROCESS_TAG: this_process()},
            raise_on_error=False,
            run_id=run_id,
        )
    if not result.success:
        raise _failure(result)


def _failure(result: dg.ExecuteInProcessResult) -> RunFailed:
    for event in result.all_events:
        if event.event_type_value == "ASSET_CHECK_EVALUATION":
            evaluation = event.asset_check_evaluation_data
            if not evaluation.passed:
                gate = evaluation.check_name
                return RunFailed((f"{gate} stopped it: {evaluation.description}",), gate)
    reasons: list[str] = []
    for event in result.all_events:
        if event.event_type_value == "STEP_FAILURE":
            error = event.step_failure_data.error
            if error is None:
                continue
            cause = error.cause or error
            named = cause.cls_name == LoraAssetsError.__name__
            text = cause.message.partition(": ")[2] if named else error.to_string()
            reasons.append(f"{event.step_key}: {text.strip()}")
    return RunFailed(tuple(reasons), None)
