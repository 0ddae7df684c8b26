"""Materialising one partition from the command line, in this process."""

import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from uuid import uuid4

import click
import dagster as dg
from dagster import DagsterInstance
from filelock import FileLock
from sqlalchemy.exc import IntegrityError

from lora_assets.assets.partitions import data_versions
from lora_assets.assets.run_tags import WHY
from lora_assets.cli.outputs import Outputs
from lora_assets.local.dead_processes import (
    PROCESS_TAG,
    fail_runs_of_dead_processes,
    this_process,
)
from lora_assets.local.pool_wait import waiting_told
from lora_assets.records.run_outcome import GateOutcome, RunFailed, StepError
from lora_assets.settings import Settings

_DAGSTER_YAML = Path(__file__).parent / "dagster.yaml"


def open_instance(settings: Settings) -> DagsterInstance:
    """Dagster's storage, runs of dead processes marked as failed."""
    home = settings.dagster_home
    os.environ["DAGSTER_HOME"] = str(home)
    if not settings.dagster_is_ours:
        return _opened(home)
    home.mkdir(parents=True, exist_ok=True)
    # Two commands that make SQLite's tables at once fail on each other's.
    with FileLock(home / ".lock"):
        _keep_dagster_yaml(home / "dagster.yaml")
        return _opened(home)


def _opened(home: Path) -> DagsterInstance:
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
    with TemporaryDirectory(dir=path.parent, prefix=".dagster.yaml.") as aside:
        Path(shutil.copy(_DAGSTER_YAML, aside)).replace(path)


def materialise(
    instance: DagsterInstance,
    job: dg.JobDefinition,
    data_version: str,
    ops: Mapping[str, Mapping[str, Any]],
    outputs: Outputs | None = None,
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
            tags={PROCESS_TAG: this_process(), WHY: typed_command(job.name)},
            raise_on_error=False,
            run_id=run_id,
        )
    if outputs is not None:
        outputs.write("run-id", result.run_id)
        for asset, metadata in _metadata(result):
            outputs.take(asset, {k: str(v.value) for k, v in metadata.items()})
    if not result.success:
        raise _failure(result)


def _metadata(
    result: dg.ExecuteInProcessResult,
) -> Iterator[tuple[str, Mapping[str, dg.MetadataValue[Any]]]]:
    for event in result.all_events:
        if event.event_type_value == "ASSET_MATERIALIZATION":
            made = event.step_materialization_data.materialization
            yield made.asset_key.to_user_string(), made.metadata
        elif event.event_type_value == "ASSET_CHECK_EVALUATION":
            check = event.asset_check_evaluation_data
            yield check.asset_key.to_user_string(), check.metadata


def typed_command(otherwise: str) -> str:
    """The command that a person or Argo gave, as in "lora-assets train"."""
    command = click.get_current_context(silent=True)
    return command.command_path if command else otherwise


def _failure(result: dg.ExecuteInProcessResult) -> RunFailed:
    gates: list[GateOutcome] = []
    errors: list[StepError] = []
    for event in result.all_events:
        if event.event_type_value == "ASSET_CHECK_EVALUATION":
            check = event.asset_check_evaluation_data
            text = check.description or ""
            gates.append(GateOutcome(name=check.check_name, passed=check.passed, description=text))
        elif event.event_type_value == "STEP_FAILURE" and event.step_failure_data.error:
            error = event.step_failure_data.error
            cause = error.cause or error
            errors.append(
                StepError(
                    step=str(event.step_key),
                    class_name=str(cause.cls_name),
                    message=cause.message,
                    whole=error.to_string(),
                )
            )
    return RunFailed.from_log(gates, errors, f"run {result.run_id} failed")
