"""Replicas that restarted or joined get back what the aliases say that they serve."""

from datetime import datetime
from time import time

import dagster as dg

from lora_assets.assets.pools import SERVING
from lora_assets.assets.run_tags import AHEAD_OF_TRAINING, WHY
from lora_assets.assets.served import ensure_loaded, slot_table
from lora_assets.errors import LoraAssetsError
from lora_assets.gates import smoke
from lora_assets.kubernetes.step_pods import step_pod
from lora_assets.lifecycle import PROMOTION
from lora_assets.records.history import ABORTED, LIVE
from lora_assets.records.model_version import Promotion
from lora_assets.resources.fleet import Fleet
from lora_assets.resources.registry import Registry
from lora_assets.resources.work_folder import WorkFolder
from lora_assets.serving.drift import KEPT, Drift, drifts
from lora_assets.serving.replicas import Replicas

SECONDS_BETWEEN_TICKS = 30

SECONDS_AFTER_A_FAILED_REPAIR = 600
"""Before the same repair is tried again: a replica that stays broken must not cause a run and a
notice at each tick, all night."""

SECONDS_OF_A_PROMOTION = 600
"""After its first step, by which time its process must be gone: its steps take seconds."""

LONGEST_REASON = 200
"""Characters, in a tag."""


def find_drift(registry: Registry, fleet: Fleet, replicas: Replicas) -> tuple[Drift, ...]:
    """Return the differences between the aliases and what the replicas serve, as of now.

    What is live is what the history says, also where the alias was moved by hand.
    """
    served = [replica.served() for replica in replicas.members]
    meant = registry.standing().meant
    return drifts(meant, fleet.live_slot, fleet.candidate_slot, served)


@dg.op(pool=SERVING, tags=step_pod("load-adapter"))
def repair(
    context: dg.OpExecutionContext, registry: Registry, fleet: Fleet, work_folder: WorkFolder
) -> None:
    """Load what is missing, and record on the live version's page which replicas serve it.

    A promotion that is under way is left alone. One that was cut short is ended: live if the alias
    had moved, else aborted.
    """
    cut_short = registry.promotion()
    if cut_short is not None and _may_go_on(cut_short):
        context.log.warning("A promotion is under way")
        return
    if cut_short is not None:
        outcome = LIVE if registry.standing().is_reached else ABORTED
        registry.end_promotion(cut_short, outcome, "it was cut short")
    standing = registry.standing()
    if standing.alias_drift is not None and standing.live is not None:
        registry.set_alias("live", standing.live)
        context.log.info(f"repaired: {standing.alias_drift}")
    replicas = fleet.discover()
    drift = find_drift(registry, fleet, replicas)
    names = {difference.name for difference in drift}
    aliases = registry.aliases()
    for alias in (kept for kept in KEPT if kept in aliases):
        version, slot = aliases[alias], fleet.slots.get(alias)
        if version.serving_name in names or slot in names:
            ensure_loaded(registry, replicas, version, work_folder)
        if slot is not None and slot in names:
            replicas.renew_slot(slot, version.serving_name, version.digest, smoke.PROMPTS)
    if left := "; ".join(map(str, find_drift(registry, fleet, replicas))):
        raise LoraAssetsError(f"Still wrong after the repair: {left}", "Restart that replica.")
    for difference in drift:
        context.log.info(f"repaired: {difference}")
    live = aliases.get("live")
    if drift and live is not None:
        shown = {"replicas": slot_table(replicas, fleet.live_slot, live)}
        context.log_event(
            dg.AssetObservation(PROMOTION, partition=live.data_version, metadata=shown)
        )


@dg.job
def repair_replicas() -> None:
    """Make every ready replica serve what the aliases say."""
    repair()


@dg.sensor(
    job=repair_replicas,
    minimum_interval_seconds=SECONDS_BETWEEN_TICKS,
    description="Starts repair_replicas where a replica serves something else than the aliases say",
)
def replica_repair(
    context: dg.SensorEvaluationContext, registry: Registry, fleet: Fleet
) -> dg.SensorResult | dg.SkipReason:
    """Compare the aliases with what each replica serves; a difference starts `repair_replicas`."""
    promotion = registry.last_promotion()
    cut_short = promotion is not None and not promotion.done
    if promotion is not None and cut_short and _may_go_on(promotion):
        return dg.SkipReason("A promotion is under way.")
    replicas = fleet.discover()
    for stranger in (each for replica in replicas.members for each in replica.served().strangers):
        context.log.warning(f"Nobody deployed this: {stranger}")
    drift = [str(each) for each in find_drift(registry, fleet, replicas)]
    if (moved := registry.standing().alias_drift) is not None:
        drift.insert(0, moved)
    if promotion is not None and cut_short:
        drift.insert(0, f"{promotion.action} to version {promotion.version.version} was cut short")
    if not drift:
        return dg.SkipReason("Every replica serves what the aliases say.")
    if registry.last_promotion() != promotion:
        return dg.SkipReason("A promotion came in between; the next tick looks again.")
    differences = "; ".join(drift)
    why = differences[:LONGEST_REASON]
    waits_for = _waits_for(context.instance, why)
    if waits_for is not None:
        return dg.SkipReason(f"{waits_for}. Found: {differences}")
    context.log.info(differences)
    return dg.SensorResult(run_requests=[dg.RunRequest(tags={WHY: why, **AHEAD_OF_TRAINING})])


def _may_go_on(promotion: Promotion) -> bool:
    """Return whether a promotion's process may still be at work on it."""
    # Earlier releases leave no time.
    began = datetime.fromisoformat(promotion.at).timestamp() if promotion.at else time()
    return time() - began < SECONDS_OF_A_PROMOTION


def _waits_for(instance: dg.DagsterInstance, why: str) -> str | None:
    """Return why no repair may start now; None if one may."""
    newest = instance.get_run_records(dg.RunsFilter(job_name=repair_replicas.name), limit=1)
    for record in newest:
        run = record.dagster_run
        if not run.is_finished:
            return "A repair is under way"
        since = time() - record.update_timestamp.timestamp()
        again = run.is_failure and run.tags.get(WHY) == why
        if again and since < SECONDS_AFTER_A_FAILED_REPAIR:
            return f"The last repair failed {since:.0f} s ago"
    return None
