"""Ticks of the sensor that watches the replicas, and the run that it starts."""

import dagster as dg

from lora_assets.sensors.replica_repair import repair_replicas, replica_repair
from lora_assets.stack_resources import Resources


def tick(resources: Resources, instance: dg.DagsterInstance) -> dg.SensorResult | dg.SkipReason:
    given = {"registry": resources.registry, "fleet": resources.fleet}
    found = replica_repair(dg.build_sensor_context(instance=instance, resources=given))
    assert isinstance(found, dg.SensorResult | dg.SkipReason)
    return found


def skipped(resources: Resources, instance: dg.DagsterInstance) -> str:
    found = tick(resources, instance)
    assert isinstance(found, dg.SkipReason)
    return str(found.skip_message)


def requested(resources: Resources, instance: dg.DagsterInstance) -> str:
    """What the one requested run says that was found."""
    found = tick(resources, instance)
    assert isinstance(found, dg.SensorResult)
    (request,) = found.run_requests or ()
    return request.tags["lora_assets/why"]


def repair(resources: Resources, instance: dg.DagsterInstance) -> None:
    names = ("registry", "fleet", "work_folder")
    given = {name: getattr(resources, name) for name in names}
    repair_replicas.execute_in_process(instance=instance, resources=given)
