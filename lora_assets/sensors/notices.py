"""Somebody is told when a gate or a promotion failed, or a replica drifted."""

import json
from collections.abc import Iterator
from typing import Literal

import dagster as dg
from dagster._core.remote_origin import CodeLocationOrigin

from lora_assets.assets.run_tags import WHY
from lora_assets.automation.next_run import CAUSE_TAG, MAX_ATTEMPTS, PROMOTION, is_for_a_person
from lora_assets.errors import LoraAssetsError
from lora_assets.records.verdict import NEXT_STEPS
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
)
def notices(
    context: dg.SensorEvaluationContext, webhook: Webhook
) -> Iterator[dg.SensorResult | dg.SkipReason]:
    """Post every failed run and every repair since the last tick; off without a webhook.

    No `run_failure_sensor`: that one goes on after an error, and the notice would be lost, and
    it does not see the runs of the command line. Here the cursor stands behind what was posted.
    A webhook that is down fails the tick, which is then tried again.
    """
    seen = json.loads(context.cursor) if context.cursor else _newest(context.instance)
    if not context.cursor or not webhook.url:
        cursor = json.dumps(_newest(context.instance) if not webhook.url else seen)
        yield dg.SensorResult(
            skip_reason="On." if webhook.url else "LORA_ASSETS_WEBHOOK is not set.", cursor=cursor
        )
        return
    posted = 0
    for kind in _KINDS:
        filter_ = dg.RunStatusChangeRecordsFilter(kind, after_storage_id=seen[kind.value])
        found = context.instance.fetch_run_status_changes(
            filter_, limit=NOTICES_PER_TICK, ascending=True
        )
        for record in found.records:
            run = context.instance.get_run_by_id(record.event_log_entry.run_id)
            text = None
            if run is not None and _is_ours(run, context.code_location_origin):
                text = _text(context.instance, run, kind, webhook)
            if text is not None:
                try:
                    webhook.post(text)
                except LoraAssetsError:
                    # What was posted must not be posted again, so its cursor is kept first.
                    if not posted:
                        raise
                    yield dg.SensorResult(
                        skip_reason="The webhook is down.", cursor=json.dumps(seen)
                    )
                    return
                posted += 1
            seen[kind.value] = record.storage_id
    yield dg.SensorResult(skip_reason=f"Posted {posted} notices.", cursor=json.dumps(seen))


def _is_ours(run: dg.DagsterRun, here: CodeLocationOrigin | None) -> bool:
    """Not one of another code location; a command's run is of none."""
    origin = run.remote_job_origin
    if origin is None or here is None:
        return True
    return origin.repository_origin.code_location_origin.location_name == here.location_name


def _newest(instance: dg.DagsterInstance) -> dict[str, int]:
    found = {
        kind.value: instance.fetch_run_status_changes(kind, limit=1).records for kind in _KINDS
    }
    return {kind: records[0].storage_id if records else 0 for kind, records in found.items()}


def _text(
    instance: dg.DagsterInstance, run: dg.DagsterRun, kind: _Ended, webhook: Webhook
) -> str | None:
    """What to say of a run that ended; None where there is nothing to say."""
    if run.job_name == REPAIR:
        found = run.tags.get(WHY, "A replica drifted")
        done = kind == dg.DagsterEventType.RUN_SUCCESS
        outcome = "It was repaired; nothing to do." if done else "Restart that replica."
        return f"{found}. {outcome} {webhook.link(run.run_id)}"
    if kind == dg.DagsterEventType.RUN_SUCCESS:
        return None
    what, remedy = _failure(instance, run)
    version = run.tags.get("dagster/partition")
    name = f"Data version {version}" if version else run.job_name
    return f"{name}: {what.rstrip('.')}. {remedy} {webhook.link(run.run_id)}"


def _failure(instance: dg.DagsterInstance, run: dg.DagsterRun) -> tuple[str, str]:
    """What stopped a run, and what to do about it."""
    evaluations = instance.get_records_for_run(
        run.run_id, of_type=dg.DagsterEventType.ASSET_CHECK_EVALUATION
    ).records
    for record in evaluations:
        event = record.event_log_entry.get_dagster_event()
        evaluation = event.asset_check_evaluation_data
        if not evaluation.passed:
            gate = evaluation.check_name
            return f"{gate} failed: {evaluation.description}", NEXT_STEPS[gate]
    step, message = _error(instance, run)
    remedy = _remedy(instance, run)
    if step == PROMOTION:
        # Live may be what it was, or half way: that a promotion can be finished helps in both.
        return f"the promotion failed: {message}", f"Promoted again it goes on. {remedy}"
    return f"{step} failed: {message}", remedy


def _error(instance: dg.DagsterInstance, run: dg.DagsterRun) -> tuple[str, str]:
    """The step that ended a run, and its error; where none did, the step that was under way."""
    failures = instance.get_records_for_run(
        run.run_id, of_type=dg.DagsterEventType.STEP_FAILURE
    ).records
    for record in failures:
        event = record.event_log_entry.get_dagster_event()
        error = event.step_failure_data.error
        cause = (error.cause or error) if error is not None else None
        if cause is None:
            return str(event.step_key), "no error was kept"
        ours = cause.cls_name == LoraAssetsError.__name__
        message = cause.message.partition(": ")[2] if ours else cause.message
        return str(event.step_key), message.strip()
    started = instance.get_records_for_run(
        run.run_id, of_type=dg.DagsterEventType.STEP_START
    ).records
    step = started[-1].event_log_entry.step_key if started else None
    return step or f"the run {run.job_name}", "its process was lost, or could not start"


def _remedy(instance: dg.DagsterInstance, run: dg.DagsterRun) -> str:
    """What becomes of a run that ended without a verdict."""
    cause = run.tags.get(CAUSE_TAG)
    if cause is None:
        return "Look at the run, then launch it again."
    if is_for_a_person(history.attempts(instance, [cause]).get(cause)):
        return "It is not launched again by itself: mend the cause, then launch it."
    return f"It is launched again by itself, {MAX_ATTEMPTS} times in all."
