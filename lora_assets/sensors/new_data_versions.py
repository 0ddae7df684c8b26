"""A new data version becomes a partition, and goes as far as its gates let it."""

from collections.abc import Mapping, Sequence

import dagster as dg

from lora_assets.assets.graph import data_versions
from lora_assets.automation import next_run
from lora_assets.automation.next_run import CAUSE_TAG, COMPARISON, NextRun
from lora_assets.gates.policy import Policy
from lora_assets.lifecycle import PROMOTION, WHOLE_GRAPH
from lora_assets.local.dead_processes import fail_runs_of_dead_processes
from lora_assets.records.progress import PARTITION_TAG, Progress
from lora_assets.records.run_tags import AHEAD_OF_TRAINING, WHY
from lora_assets.resources.data_bucket import DataBucket
from lora_assets.resources.policy import PolicyFile
from lora_assets.resources.registry import Registry
from lora_assets.sensors import history

SECONDS_BETWEEN_TICKS = 4
"""Less than the 5 s of the daemon's own loop: with 5, every other loop has no tick."""

LAUNCHES_PER_TICK = 20
"""Keeps a tick short when a thousand versions come at once; the next one goes on."""

PROMOTED = {PROMOTION: {"config": {"source_alias": "perf-passed"}}}

NOTE = (
    "Nothing happens to this version by itself: it was there before the sensor new_data_versions "
    "was switched on. 'Materialize…' on this page starts it, and the sensor goes on."
)
SHOWN_WAITING = 5


@dg.sensor(
    job_name=WHOLE_GRAPH,
    minimum_interval_seconds=SECONDS_BETWEEN_TICKS,
    description="Advances each new data version as far as its gates let it: train, then serve",
)
def new_data_versions(
    context: dg.SensorEvaluationContext,
    data_bucket: DataBucket,
    registry: Registry,
    policy: PolicyFile,
) -> dg.SensorResult:
    """Make complete data versions partitions, and launch what each of them needs next.

    Every tick starts from the bucket, Dagster's history and the registry, and keeps no state:
    one that is repeated, crashes or runs late comes to the same work, under the same run keys.
    The first tick only records the versions that are there already.
    """
    versions, others = data_bucket.survey()
    passed_over = [f"{name} is passed over: it {reason}" for name, reason in others.items()]
    unknown = set(versions) - set(context.instance.get_dynamic_partitions(str(data_versions.name)))
    partitions = [data_versions.build_add_request(sorted(unknown))] if unknown else []
    if context.cursor is None:
        return dg.SensorResult(
            skip_reason="; ".join(
                [f"Switched on. {len(versions)} data versions are there already.", *passed_over]
            ),
            asset_events=[
                dg.AssetObservation("training_data", NOTE, {"note": NOTE}, partition=version)
                for version in versions
            ],
            dynamic_partitions_requests=partitions,
            cursor="switched on",
        )
    fail_runs_of_dead_processes(context.instance)
    # Before the history: what ends in between is left to the next tick.
    runs = history.unfinished_runs(context.instance)
    taken = {tags[PARTITION_TAG] for tags in runs if PARTITION_TAG in tags}
    taken |= history.backfilled(context.instance, context.repository_def)
    of_workflows = history.of_workflows(context.instance)
    taken |= of_workflows.keys()
    progress = history.read_progress(context.instance, versions)
    free = [each for each in progress if each.data_version not in taken]
    demanded = policy.read()
    automatic = policy.automatic_promotion
    if demanded.promotion is not None:
        automatic = demanded.promotion == "automatic"
    wanted = _wanted(context.instance, free, registry, automatic)
    tried = history.attempts(context.instance, [run.cause for run in wanted])
    cancelled = history.cancelled(context.instance, [run.data_version for run in wanted])
    held = {
        run.data_version: next_run.may_launch(tried.get(run.cause), run.data_version in cancelled)
        for run in wanted
    }
    ready = [run for run in wanted if held[run.data_version] is None]
    serving = any(tags.get(history.PHASE_TAG) == "serve" for tags in runs)
    requests = [
        _request(run, demanded, tried[run.cause].launched if run.cause in tried else 0)
        for run in next_run.launches(ready, serving, LAUNCHES_PER_TICK)
    ]
    summary = _summary(progress, len(taken), of_workflows, held)
    return dg.SensorResult(
        run_requests=requests,
        skip_reason=None if requests else "; ".join([summary, *passed_over[:SHOWN_WAITING]]),
        dynamic_partitions_requests=partitions,
    )


def _wanted(
    instance: dg.DagsterInstance, free: Sequence[Progress], registry: Registry, automatic: bool
) -> Sequence[NextRun]:
    """Return the run that each data version needs next.

    Of those past their gates, only the newest that can go on is compared again or promoted: the
    others are then older than live, or have to be compared with it. A version that a person's
    backfill was to promote goes before those that wait for a person.
    """
    live = registry.aliases().get("live")
    live_version = live.data_version if live else None
    waiting = next_run.waiting_for_promotion(free, live_version)
    names = {each.data_version for each in waiting}
    others = [each for each in free if each.data_version not in names]
    runs = [next_run.next_run(each, live_version, automatic) for each in others]
    wanted = [run for run in runs if run is not None]
    promoted = names if automatic else history.to_be_promoted(instance, names)
    gates = [stage.gate.name for stage in COMPARISON if stage.gate is not None]
    for each in sorted(waiting, key=lambda each: each.data_version not in promoted):
        may_promote = each.data_version in promoted
        version = registry.newest(each.data_version)
        verdicts = registry.verdicts(version) if version else {}
        compared_with = [verdicts[gate].compared_with for gate in gates if gate in verdicts]
        if version is None or not compared_with:
            # Removed or registered by hand: it can't be promoted, and must not block the others.
            continue
        if live is not None and version.is_older_than(live):
            # By its registration, where names don't say.
            continue
        run = None
        # A version that is live already only lacks its materialisation: its run died before.
        if version != live:
            live_digest = live.digest if live else None
            run = next_run.compare_again(each, compared_with, live_digest, may_promote)
        run = run or next_run.next_run(each, live_version, may_promote)
        if run is None:
            return wanted
        tried = history.attempts(instance, [run.cause]).get(run.cause)
        stopped = history.cancelled(instance, [each.data_version])
        if not stopped and not next_run.needs_manual_relaunch(tried):
            return [*wanted, run]
    return wanted


def _request(run: NextRun, policy: Policy, launched: int) -> dg.RunRequest:
    ops = {op: {"config": config} for op, config in policy.ops(run.assets).items()}
    return dg.RunRequest(
        run_key=f"{run.cause}/{launched + 1}",
        partition_key=run.data_version,
        asset_selection=[dg.AssetKey(asset) for asset in run.assets],
        asset_check_keys=history.gate_keys(run.assets),
        run_config={"ops": {**ops, **(PROMOTED if PROMOTION in run.assets else {})}},
        tags={
            CAUSE_TAG: run.cause,
            history.PHASE_TAG: run.phase,
            WHY: run.why,
            **(AHEAD_OF_TRAINING if run.phase == "serve" else {}),
        },
    )


def _summary(
    progress: Sequence[Progress],
    running: int,
    of_workflows: Mapping[str, str],
    held: Mapping[str, str | None],
) -> str:
    stopped = sum(next_run.stopped_by(each) is not None for each in progress)
    waits = [f"{version} is left to {workflow}" for version, workflow in of_workflows.items()]
    waits += [f"{version} {reason}" for version, reason in held.items() if reason is not None]
    untouched = sum(next_run.is_untouched(each) for each in progress)
    counts = f"{len(progress)} data versions: {running} under way, {stopped} stopped by a gate"
    if untouched:
        counts += f", {untouched} present before the sensor was on (materialise one to start it)"
    return "; ".join([counts, *waits[:SHOWN_WAITING]])
