"""Replicas that restarted or joined get back what the aliases say that they serve."""

import dagster as dg

from lora_assets.assets.pools import SERVING
from lora_assets.assets.served import bring
from lora_assets.assets.step_pods import LOAD_ADAPTER
from lora_assets.errors import LoraAssetsError
from lora_assets.gates import smoke
from lora_assets.gates.drift import KEPT, Drift, drifts
from lora_assets.resources.fleet import Fleet
from lora_assets.resources.registry import Registry
from lora_assets.resources.work_folder import WorkFolder
from lora_assets.sensors.notices import FOUND_TAG

SECONDS_BETWEEN_TICKS = 30


def find_drift(registry: Registry, fleet: Fleet) -> tuple[Drift, ...]:
    """What the replicas serve now, held against the aliases as they are now."""
    served = [replica.served() for replica in fleet.replicas]
    return drifts(registry.aliases(), fleet.live_slot, fleet.candidate_slot, served)


@dg.op(pool=SERVING, tags=LOAD_ADAPTER)
def repair(
    context: dg.OpExecutionContext, registry: Registry, fleet: Fleet, work_folder: WorkFolder
) -> None:
    """Bring back what is missing. A promotion that was cut short is left to its own next run."""
    if registry.promotion() is not None:
        context.log.warning("A promotion is not finished: promote or roll back again first")
        return
    drift = find_drift(registry, fleet)
    names = {difference.name for difference in drift}
    aliases = registry.aliases()
    for alias in KEPT:
        version = aliases.get(alias)
        if version is None:
            continue
        slot = fleet.slots.get(alias)
        if version.serving_name in names or slot in names:
            bring(registry, fleet, version, work_folder)
        if slot is not None and slot in names:
            fleet.renew_slot(slot, version.serving_name, version.digest, smoke.PROMPTS)
    left = find_drift(registry, fleet)
    if left:
        raise LoraAssetsError(
            f"Still wrong after the repair: {'; '.join(map(str, left))}", "Restart that replica."
        )
    for difference in drift:
        context.log.info(f"repaired: {difference}")


@dg.job
def repair_replicas() -> None:
    """Have every ready replica serve what the aliases say."""
    repair()


@dg.sensor(job=repair_replicas, minimum_interval_seconds=SECONDS_BETWEEN_TICKS)
def replica_repair(
    context: dg.SensorEvaluationContext, registry: Registry, fleet: Fleet
) -> dg.SensorResult | dg.SkipReason:
    """Compare the aliases with what each replica serves; a difference starts `repair_replicas`."""
    if registry.promotion() is not None:
        return dg.SkipReason("A promotion is under way.")
    drift = find_drift(registry, fleet)
    if not drift:
        return dg.SkipReason("Every replica serves what the aliases say.")
    found = "; ".join(map(str, drift))
    unfinished = dg.RunsFilter(
        job_name=repair_replicas.name,
        statuses=[
            dg.DagsterRunStatus.QUEUED,
            dg.DagsterRunStatus.NOT_STARTED,
            dg.DagsterRunStatus.STARTING,
            dg.DagsterRunStatus.STARTED,
        ],
    )
    if context.instance.get_runs(unfinished, limit=1):
        return dg.SkipReason(f"A repair is under way. Found: {found}")
    context.log.info(found)
    return dg.SensorResult(run_requests=[dg.RunRequest(tags={FOUND_TAG: found[:200]})])
