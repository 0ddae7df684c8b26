"""A run of one partition in this process."""

import json
from collections.abc import Callable, Iterator, Mapping
from signal import SIG_IGN
from typing import Any
from uuid import uuid4

import dagster as dg
from dagster import DagsterInstance

from lora_assets.errors import Stopped
from lora_assets.lifecycle import run_failed
from lora_assets.local.code_location import LABEL, TAG, show_in_location
from lora_assets.local.dead_processes import PROCESS_TAG, living
from lora_assets.local.instance import add_partitions
from lora_assets.local.pool_wait import report_waiting
from lora_assets.local.stopping import mark_cancelled, noted_signals
from lora_assets.local.terminal import bar_cleared
from lora_assets.records.progress import PARTITION_TAG
from lora_assets.records.run_outcome import GateOutcome, RunFailed, StepError
from lora_assets.records.run_tags import BY, WHY, user
from lora_assets.stop_signals import handled_by


def run_in_process(
    instance: DagsterInstance,
    job: dg.JobDefinition,
    data_version: str,
    ops: Mapping[str, Mapping[str, Any]],
    *,
    why: str = "",
    on_run: Callable[[str], None] | None = None,
    on_metadata: Callable[[str, Mapping[str, str]], None] | None = None,
) -> None:
    """Run `job` on one partition, `ops` holding the configuration of each op that has some.

    `why` says what started the run. `on_run` gets the run's id, and `on_metadata` the metadata of
    each asset and gate at the end. Raises RunFailed when a gate or an error stopped the run, and
    Stopped when a signal did, with the run marked as cancelled.
    """
    add_partitions(instance, [data_version])
    run_id = str(uuid4())
    if on_run is not None:
        on_run(run_id)
    with (
        bar_cleared(),
        living(instance) as process,
        noted_signals() as noted,
        report_waiting(instance, run_id, noted),
    ):
        try:
            result = job.execute_in_process(
                instance=instance,
                partition_key=data_version if job.partitions_def is not None else None,
                run_config={
                    "ops": {op: {"config": dict(config)} for op, config in ops.items()},
                    # Without its name here a job's own logger gives way to Dagster's default one.
                    "loggers": {"console": {}},
                },
                # A job without partitions is about the model of this one.
                tags={
                    PROCESS_TAG: process,
                    WHY: why or job.name,
                    BY: user(),
                    PARTITION_TAG: data_version,
                    TAG: LABEL,
                },
                raise_on_error=False,
                run_id=run_id,
            )
        except BaseException:
            # A second signal breaks off whatever Dagster does about the first one.
            if noted() is None:
                raise
        # What the first signal has begun, the next one does not break.
        with handled_by(SIG_IGN):
            number = noted()
            outcome = mark_cancelled(instance, run_id) if number is not None else ""
            show_in_location(instance, run_id)
        if number is not None:
            raise Stopped(number, outcome)
    if on_metadata is not None:
        for asset, metadata in _metadata(result):
            on_metadata(asset, {name: _text(value.value) for name, value in metadata.items()})
    if not result.success:
        raise _failure(result)


def _text(value: Any) -> str:
    return json.dumps(value) if isinstance(value, dict) else str(value)


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


def _failure(result: dg.ExecuteInProcessResult) -> RunFailed:
    gates = [
        GateOutcome(name=each.check_name, passed=each.passed, description=each.description or "")
        for each in result.get_asset_check_evaluations()
    ]
    errors = [
        StepError(
            step=str(event.step_key),
            class_name=str((error.cause or error).cls_name),
            message=(error.cause or error).message,
            whole=error.to_string(),
        )
        for event in result.get_step_failure_events()
        if (error := event.step_failure_data.error) is not None
    ]
    return run_failed(gates, errors, f"run {result.run_id} failed")
