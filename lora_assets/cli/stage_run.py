"""A stage, or one of its steps, on one data version: in this process or on a remote Dagster."""

from collections.abc import Callable, Mapping
from typing import Any, TypeVar
from uuid import uuid4

import click

from lora_assets.cli.outputs import Name, Outputs
from lora_assets.cli.result import json_option, print_result, wants_json
from lora_assets.cli.stack import Stack, resource_config, typed_command
from lora_assets.heavy_imports import heavy_imports
from lora_assets.lifecycle import JOBS, STEPS, Step
from lora_assets.local.terminal import bar_cleared, say
from lora_assets.records import Record
from lora_assets.records.model_version import ModelVersion
from lora_assets.records.partition import data_version_of, partition_of
from lora_assets.records.progress import ANSWERED, PARTITION_TAG, PARTITIONS
from lora_assets.records.run_outcome import RunFailed
from lora_assets.records.run_tags import launch_tags
from lora_assets.remote.log import RunEvent
from lora_assets.remote.run import RemoteRun, Stop, stop_signals
from lora_assets.remote.webserver import DagsterWebserver, Run

Command = TypeVar("Command", bound=Callable[..., Any])

SECONDS_FOR_THE_FIRST_SIDE = 60.0
"""How long inference-live waits for inference-candidate, which starts beside it, to launch the
run that they share. Until then it imports Dagster and MLflow, and reads the data: 3 s of CPU, on a
busy machine ten times as long."""

NEXT: Mapping[str, str] = {
    "train": "deploy",
    "deploy": "evaluate",
    "evaluate": "performance",
    "performance": "promote --source-alias perf-passed",
    "promote": "status",
}
"""What a person types after a stage."""

REQUEST_TAG = "lora_assets/request"
SELECTION_TAG = "lora_assets/selection"
_OUTPUT_TAGS: Mapping[str, Name] = {
    PARTITION_TAG: "data-version",
    "lora_assets/model_version": "model-version",
    "lora_assets/digest": "digest",
}


class Work(Record):
    """The data version to run on, and the configuration of the run's ops.

    `version` is the adapter that the run is about, where there is one before the run.
    """

    data_version: str
    ops: Mapping[str, Mapping[str, Any]]
    version: ModelVersion | None = None

    def tags(self, partition: str) -> Mapping[str, str]:
        """Return the tags of a run on `partition`, so that a later attempt need not ask again."""
        tags = {PARTITION_TAG: partition}
        if self.version is not None:
            tags["lora_assets/model_version"] = str(self.version.version)
            tags["lora_assets/digest"] = self.version.digest
        return tags


def step_option(stage: str) -> Callable[[Command], Command]:
    """Add --step, with the steps of a stage, and --json."""
    steps = click.Choice(list(STEPS[stage]))
    step = click.option("--step", type=steps, default=None, help="Run only this step of the stage")
    return lambda command: step(json_option(command))


def run_stage(
    stack: Stack, stage: str, step_name: str | None, find_work: Callable[[], Work]
) -> None:
    """Run a stage or its step, on the Dagster of DAGSTER_URL where that is set.

    `find_work` is asked only before a launch, and raises where a run could not succeed. A later
    attempt finds its run even if the alias that the first one started from is gone.
    """
    step = STEPS[stage][step_name] if step_name is not None else None
    job = step.job if step is not None else stage
    outputs = Outputs(stack.settings.outputs)
    try:
        if stack.settings.dagster_url:
            _run_remotely(stack, job, step, find_work, outputs)
        else:
            _run_here(stack, job, step, find_work(), outputs)
    except RunFailed as failed:
        if failed.gate is not None:
            _conclude(stack, stage, outputs, "failed")
        raise
    _conclude(stack, stage, outputs, "passed")
    click.echo(f"{stage}{f' {step_name}' if step_name else ''}: done", err=True)
    if step_name is None and stage in NEXT:
        model = f" --model-name {stack.model}" if "model_name" in stack.given else ""
        click.echo(f"next: lora-assets {NEXT[stage]}{model}", err=True)


def write_outputs(stack: Stack, work: Work) -> None:
    """Write the outputs of a step that passed and needed no run."""
    outputs = Outputs(stack.settings.outputs)
    _write(outputs, work.tags(work.data_version))
    _conclude(stack, click.get_current_context().info_name or "", outputs, "passed")


def _conclude(stack: Stack, stage: str, outputs: Outputs, result: str) -> None:
    """Leave what a stage came to; print all of it where a program wants it."""
    outputs.write("result", result)
    if wants_json():
        print_result(stack.resources.registry, stage, outputs)


def _run_here(stack: Stack, job: str, step: Step | None, work: Work, outputs: Outputs) -> None:
    # A run elsewhere has no need of Dagster here.
    with heavy_imports():
        from dagster import AssetCheckKey, AssetKey

        from lora_assets.definitions import make_definitions
        from lora_assets.local.run import run_in_process

    partition = partition_of(work.data_version, stack.model, stack.settings.model_name)
    click.echo(f"{job}: data version {partition}", err=True)
    definition = make_definitions(stack.settings).resolve_job_def(job)
    if step is not None:
        definition = definition.get_subset(
            asset_selection={AssetKey(asset) for asset in step.assets},
            asset_check_selection={AssetCheckKey.from_user_string(c) for c in step.checks},
        )
    _write(outputs, work.tags(partition))
    run_in_process(
        stack.open_instance(),
        definition,
        partition,
        _configured(stack, job, step, work),
        why=typed_command(job),
        on_run=lambda run_id: outputs.write("run-id", run_id),
        on_metadata=outputs.take,
    )


def _run_remotely(
    stack: Stack, job: str, step: Step | None, find_work: Callable[[], Work], outputs: Outputs
) -> None:
    dagster = DagsterWebserver(stack.settings.dagster_url, stack.settings.dagster_ui_url)
    tags = {
        REQUEST_TAG: stack.settings.request or str(uuid4()),
        SELECTION_TAG: step.selection if step is not None else job,
    }
    remote = RemoteRun(dagster, tags, say)
    # From here on: an attempt that is stopped has to find the run of the one before first.
    with bar_cleared(), stop_signals() as stop:
        if _find(remote, stop, step, bool(stack.settings.request)) is None:
            location = dagster.locate(job)
            with stop.before_launch():
                work = find_work()
            origin = launch_tags(typed_command(job), stack.settings.argo_workflow)
            ops = _configured(stack, job, step, work)
            configured = dagster.configured(location)
            run_config = {
                "ops": {op: {"config": config} for op, config in ops.items()},
                "resources": resource_config(stack.given, configured),
            }
            own = configured["registry"]["model_name"]
            partition = partition_of(work.data_version, stack.model, own)
            dagster.add_partition(location, PARTITIONS, partition)
            every = {**tags, **work.tags(partition), **origin}
            remote.launch(lambda: dagster.launch(location, job, step, run_config, every), stop)
        _follow(remote, stop, step, outputs)


def _configured(
    stack: Stack, job: str, step: Step | None, work: Work
) -> Mapping[str, Mapping[str, Any]]:
    """Return the configuration of the ops: the policy of LORA_ASSETS_POLICY, where no option is."""
    demanded = stack.resources.policy.read().ops(JOBS.get(job, ()))
    ops = {op: {**demanded.get(op, {}), **work.ops.get(op, {})} for op in {*demanded, *work.ops}}
    return step.ops(ops) if step is not None else ops


def _find(remote: RemoteRun, stop: Stop, step: Step | None, is_shared: bool) -> Run | None:
    """Return the request's run, if there is one.

    Of two steps that start side by side and share a run, the one that waits for live's answers
    gives the other time to launch it. Only steps of the same named request share one.
    """
    if is_shared and step is not None and step.until == "live":
        return remote.await_other(stop, SECONDS_FOR_THE_FIRST_SIDE)
    return remote.find()


def _follow(remote: RemoteRun, stop: Stop, step: Step | None, outputs: Outputs) -> None:
    def on_run(run: Run) -> None:
        outputs.write("run-id", run.run_id)
        _write(outputs, run.tags)

    def is_last(event: RunEvent) -> bool:
        if event.kind in ("MaterializationEvent", "AssetCheckEvaluationEvent"):
            outputs.take(event.asset, event.metadata)
        side = event.metadata.get(ANSWERED) if event.kind == "ObservationEvent" else None
        return side is not None and step is not None and side == step.until

    remote.follow(stop, on_run, is_last)


def _write(outputs: Outputs, tags: Mapping[str, str]) -> None:
    for tag, name in _OUTPUT_TAGS.items():
        if tag in tags:
            value = tags[tag]
            outputs.write(name, data_version_of(value) if tag == PARTITION_TAG else value)
