"""Replicas that restarted or joined get back what the aliases say that they serve."""

from collections.abc import Sequence
from datetime import datetime
from time import time

import dagster as dg
from dagster import DefaultSensorStatus as Status

from lora_assets.assets.graph import SERVING, data_versions
from lora_assets.assets.served import ensure_loaded, slot_table
from lora_assets.errors import LoraAssetsError
from lora_assets.kubernetes.step_pods import step_pod
from lora_assets.lifecycle import PROMOTION
from lora_assets.records.history import ABORTED, LIVE
from lora_assets.records.model_version import ModelVersion, Promotion
from lora_assets.records.partition import other_models
from lora_assets.records.run_tags import AHEAD_OF_TRAINING, WHY
from lora_assets.records.served import Served
from lora_assets.resources.fleet import Fleet
from lora_assets.resources.registry import Registry
from lora_assets.resources.work_folder import WorkFolder
from lora_assets.serving.drift import KEPT, Drift, drifts

SECONDS_BETWEEN_TICKS = 20

SECONDS_AFTER_FAILED_REPAIRS = 600
"""Before a repair that failed twice is tried again: a replica that stays broken must not cause a
run and a notice at each tick, all night. One failure may be a fault that came in between."""

SECONDS_OF_A_PROMOTION = 600
"""After its first step, by which time its process must be gone: its steps take seconds. For one
whose run this Dagster knows, its end is enough."""

ROOT_RUN = "dagster/root_run_id"

LONGEST_REASON = 200
"""Characters, in a tag."""


def models(
    instance: dg.DagsterInstance, registry: Registry, fleet: Fleet
) -> Sequence[tuple[Registry, Fleet]]:
    """Return registry and slots of each model that has partitions, the deployment's own first."""
    partitions = instance.get_dynamic_partitions(str(data_versions.name))
    others = other_models(partitions, registry.model_name)
    return [(registry, fleet), *((registry.of_model(m), fleet.of_model(m)) for m in others)]


def find_drift(registry: Registry, fleet: Fleet, served: Sequence[Served]) -> tuple[Drift, ...]:
    """Return the differences between a model's aliases and what the replicas serve, as of now.

    What is live is what the history says, also where the alias was moved by hand.
    """
    return drifts(registry.standing().meant, fleet.live_slot, fleet.candidate_slot, served)


@dg.op(pool=SERVING, tags=step_pod("load-adapter"))
def repair(
    context: dg.OpExecutionContext, registry: Registry, fleet: Fleet, work_folder: WorkFolder
) -> None:
    """Load what is missing, and record on the live version's page which replicas serve it.

    A promotion that is under way is left alone. One that was cut short is ended: live if the alias
    had moved, else aborted.
    """
    for of_model, slots in models(context.instance, registry, fleet):
        cut_short = of_model.promotion()
        if cut_short is not None and _may_go_on(context.instance, cut_short):
            context.log.warning(f"A promotion of {of_model.model_name} is under way")
            continue
        if cut_short is not None:
            outcome = LIVE if of_model.standing().is_reached else ABORTED
            of_model.end_promotion(cut_short, outcome, "it was cut short")
        live = _repair(context, of_model, slots, work_folder)
        if live is not None:
            shown = {"replicas": slot_table(slots.discover(), slots.live_slot, live)}
            partition = of_model.partition(live)
            context.log_event(dg.AssetObservation(PROMOTION, partition=partition, metadata=shown))


def _repair(
    context: dg.OpExecutionContext, registry: Registry, fleet: Fleet, work_folder: WorkFolder
) -> ModelVersion | None:
    """Repair what differs from one model's aliases; return its live version if anything did."""
    standing = registry.standing()
    if standing.alias_drift is not None and standing.live is not None:
        registry.set_alias("live", standing.live)
        context.log.info(f"repaired: {standing.alias_drift}")
    replicas = fleet.discover()
    drift = find_drift(registry, fleet, replicas.served())
    names = {difference.name for difference in drift}
    aliases = registry.aliases()
    for alias in (kept for kept in KEPT if kept in aliases):
        version, slot = aliases[alias], fleet.slots.get(alias)
        if version.serving_name in names or slot in names:
            ensure_loaded(registry, replicas, version, work_folder)
        if slot is not None and slot in names:
            place = (slot, version.serving_name, version.digest)
            replicas.renew_slot(
                *place, may_go_on=lambda: registry.last_promotion() == standing.last
            )
    if left := "; ".join(map(str, find_drift(registry, fleet, replicas.served()))):
        raise LoraAssetsError(f"Still wrong after the repair: {left}", "Restart that replica.")
    for difference in drift:
        context.log.info(f"repaired: {difference}")
    return aliases.get("live") if drift else None


@dg.job
def repair_replicas() -> None:
    """Make every ready replica serve what the aliases say."""
    repair()


def replica_repair(is_on: bool = False) -> dg.SensorDefinition:
    """Return the sensor. Unless it `is_on` as installed, somebody has to switch it on."""
    make = dg.sensor(
        name="replica_repair",
        job=repair_replicas,
        minimum_interval_seconds=SECONDS_BETWEEN_TICKS,
        default_status=Status.RUNNING if is_on else Status.STOPPED,
        description=_ABOUT,
    )
    return make(_request_repair)


_ABOUT = "Starts repair_replicas where a replica serves something else than the aliases say"


def _request_repair(
    context: dg.SensorEvaluationContext, registry: Registry, fleet: Fleet
) -> dg.SensorResult | dg.SkipReason:
    """Compare the aliases with what each replica serves; a difference starts `repair_replicas`."""
    # A promotion that is under way is left to itself.
    steady = [
        (of_model, slots, promotion)
        for of_model, slots in models(context.instance, registry, fleet)
        if (promotion := of_model.last_promotion()) is None
        or promotion.done
        or not _may_go_on(context.instance, promotion)
    ]
    if not steady:
        return dg.SkipReason("A promotion is under way.")
    served = fleet.discover().served()
    for stranger in (each for replica in served for each in replica.strangers):
        context.log.warning(f"Nobody deployed this: {stranger}")
    cut_short = [
        f"{promotion.action} to version {promotion.version.version} was cut short"
        for _, _, promotion in steady
        if promotion is not None and not promotion.done
    ]
    moved = [of_model.standing().alias_drift for of_model, _, _ in steady]
    found = [each for of, slots, _ in steady for each in find_drift(of, slots, served)]
    drift = [*cut_short, *filter(None, moved), *map(str, found)]
    if not drift:
        return dg.SkipReason("Every replica serves what the aliases say.")
    if any(of_model.last_promotion() != promotion for of_model, _, promotion in steady):
        return dg.SkipReason("A promotion came in between; the next tick looks again.")
    differences = "; ".join(drift)
    why = differences[:LONGEST_REASON]
    waits_for = _waits_for(context.instance, why)
    if waits_for is not None:
        return dg.SkipReason(f"{waits_for}. Found: {differences}")
    context.log.info(differences)
    return dg.SensorResult(run_requests=[dg.RunRequest(tags={WHY: why, **AHEAD_OF_TRAINING})])


def _may_go_on(instance: dg.DagsterInstance, promotion: Promotion) -> bool:
    """Return whether a promotion's process may still be at work on it."""
    retries = instance.get_runs(dg.RunsFilter(tags={ROOT_RUN: promotion.run_id}))
    runs = [*retries, *instance.get_runs(dg.RunsFilter(run_ids=[promotion.run_id]))]
    if runs and all(run.is_finished for run in runs):
        return False
    # Earlier releases leave no time.
    began = datetime.fromisoformat(promotion.at).timestamp() if promotion.at else time()
    return time() - began < SECONDS_OF_A_PROMOTION


def _waits_for(instance: dg.DagsterInstance, why: str) -> str | None:
    """Return why no repair may start now; None if one may."""
    newest = instance.get_run_records(dg.RunsFilter(job_name=repair_replicas.name), limit=2)
    runs = [record.dagster_run for record in newest]
    if not all(run.is_finished for run in runs):
        return "A repair is under way"
    if [run.tags.get(WHY) for run in runs if run.is_failure] == [why, why]:
        since = time() - newest[0].update_timestamp.timestamp()
        if since < SECONDS_AFTER_FAILED_REPAIRS:
            return f"The last repair failed {since:.0f} s ago, and the one before it"
    return None
