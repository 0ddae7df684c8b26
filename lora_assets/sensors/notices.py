"""A notice on a webhook when a gate or a promotion failed, or a replica drifted."""

import json
from typing import Literal

import dagster as dg

from lora_assets.automation.next_run import CAUSE_TAG, MAX_ATTEMPTS, needs_manual_relaunch
from lora_assets.errors import LoraAssetsError
from lora_assets.lifecycle import GATES, PROMOTION
from lora_assets.local.code_location import LOCATION
from lora_assets.records.progress import PARTITION_TAG
from lora_assets.records.run_tags import WHY
from lora_assets.resources.webhook import Webhook
from lora_assets.sensors import history

SECONDS_BETWEEN_TICKS = 10
NOTICES_PER_TICK = 20
REPAIR = "repair_replicas"

_Ended = Literal[dg.DagsterEventType.RUN_FAILURE, dg.DagsterEventType.RUN_SUCCESS]
_KINDS: tuple[_Ended, ...] = (dg.DagsterEventType.RUN_FAILURE, dg.DagsterEventType.RUN_SUCCESS)


@dg.sensor(
    minimum_interval_seconds=SECONDS_BETWEEN_TICKS,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Posts failed gates, failed runs and repairs to LORA_ASSETS_WEBHOOK",
)
def notices(context: dg.SensorEvaluationContext, webhook: Webhook) -> dg.SensorResult:
    """Post every failed run and every repair since the last tick; off without a webhook.

    A `run_failure_sensor` would lose a notice, since it goes on after an error, and it does not
    see the runs of the command line. Here the cursor moves on only past what was posted. A
    webhook that is down fails the tick, and Dagster tries it again.
    """
    if not context.cursor or not webhook.url:
        reason = "On." if webhook.url else "LORA_ASSETS_WEBHOOK is not set."
        return dg.SensorResult(skip_reason=reason, cursor=json.dumps(_newest(context.instance)))
    seen = json.loads(context.cursor)
    posted = 0
    for kind in _KINDS:
        newer = dg.RunStatusChangeRecordsFilter(kind, after_storage_id=seen[kind.value])
        changes = context.instance.fetch_run_status_changes(newer, NOTICES_PER_TICK, ascending=True)
        for record in changes.records:
            run = context.instance.get_run_by_id(record.event_log_entry.run_id)
            text = _text(context, run, kind, webhook) if run else ""
            if text:
                try:
                    webhook.post(text)
                except LoraAssetsError:
                    # What was posted must not be posted again, so its cursor is kept first.
                    if not posted:
                        raise
                    return dg.SensorResult(
                        skip_reason="The webhook is down.", cursor=json.dumps(seen)
                    )
                posted += 1
            seen[kind.value] = record.storage_id
    return dg.SensorResult(skip_reason=f"Posted {posted} notices.", cursor=json.dumps(seen))


def _is_ours(run: dg.DagsterRun, context: dg.SensorEvaluationContext) -> bool:
    """Return False for a run of another code location; a command's may have no location."""
    origin, here = run.remote_job_origin, context.code_location_origin
    if origin is None or here is None:
        return True
    name = origin.repository_origin.code_location_origin.location_name
    return name in (here.location_name, LOCATION)


def _newest(instance: dg.DagsterInstance) -> dict[str, int]:
    changes = {kind: instance.fetch_run_status_changes(kind, limit=1).records for kind in _KINDS}
    return {kind.value: newest[0].storage_id if newest else 0 for kind, newest in changes.items()}


def _text(
    context: dg.SensorEvaluationContext, run: dg.DagsterRun, kind: _Ended, webhook: Webhook
) -> str:
    """Return the notice of a run that ended; empty if it needs none."""
    if not _is_ours(run, context):
        return ""
    if run.job_name == REPAIR:
        why = run.tags.get(WHY, "A replica drifted")
        done = kind == dg.DagsterEventType.RUN_SUCCESS
        outcome = "It was repaired; nothing to do." if done else "Restart that replica."
        return f"{why}. {outcome} {webhook.link(run.run_id)}"
    # A command that was stopped fails its run for an instant.
    if kind == dg.DagsterEventType.RUN_SUCCESS or run.status == dg.DagsterRunStatus.CANCELED:
        return ""
    what, remedy = _failure(context.instance, run)
    version = run.tags.get(PARTITION_TAG)
    name = f"Data version {version}" if version else run.job_name
    return f"{name}: {what.rstrip('.')}. {remedy} {webhook.link(run.run_id)}"


def _failure(instance: dg.DagsterInstance, run: dg.DagsterRun) -> tuple[str, str]:
    """Return what stopped a run, and what to do about it."""
    for evaluation in history.evaluations(instance, run.run_id):
        if not evaluation.passed:
            gate = evaluation.check_name
            return f"{gate} failed: {evaluation.description}", GATES[gate].remedy
    cause = run.tags.get(CAUSE_TAG)
    if cause is None:
        remedy = "Look at the run, then launch it again."
    elif needs_manual_relaunch(history.attempts(instance, [cause]).get(cause)):
        remedy = "It is not launched again by itself: remove the cause, then launch it."
    else:
        remedy = f"It is launched again by itself, {MAX_ATTEMPTS} times in all."
    step, message = _error(instance, run)
    if step == PROMOTION:
        # Live is the old version or half way to the new one: promoting again is right in both.
        return f"the promotion failed: {message}", f"Promoting again resumes it. {remedy}"
    return f"{step} failed: {message}", remedy


def _error(instance: dg.DagsterInstance, run: dg.DagsterRun) -> tuple[str, str]:
    """Return the step that failed and its error; else the step that was under way."""
    for event in history.events(instance, run.run_id, dg.DagsterEventType.STEP_FAILURE):
        error = event.step_failure_data.error
        cause = (error.cause or error) if error is not None else None
        if cause is None:
            return str(event.step_key), "no error was kept"
        ours = cause.cls_name == LoraAssetsError.__name__
        message = cause.message.partition(": ")[2] if ours else cause.message
        return str(event.step_key), message.strip()
    started = history.events(instance, run.run_id, dg.DagsterEventType.STEP_START)
    step = started[-1].step_key if started else None
    return step or f"the run {run.job_name}", "its process was lost, or could not start"
