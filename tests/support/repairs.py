"""Ticks of the sensor that watches the replicas, and the run that it starts."""

from dataclasses import dataclass

import dagster as dg

from lora_assets.resources.fleet import Fleet
from lora_assets.resources.registry import Registry
from lora_assets.sensors.replica_repair import repair_replicas, replica_repair
from lora_assets.serving.replicas import Replicas
from lora_assets.stack_resources import Resources


@dataclass(frozen=True)
class Watch:
    """The sensor over a stack, on a Dagster instance."""

    resources: Resources
    instance: dg.DagsterInstance

    @property
    def registry(self) -> Registry:
        return self.resources.registry

    @property
    def fleet(self) -> Fleet:
        return self.resources.fleet

    @property
    def replicas(self) -> Replicas:
        return self.fleet.discover()

    def tick(self) -> dg.SensorResult | dg.SkipReason:
        given = {"registry": self.registry, "fleet": self.fleet}
        context = dg.build_sensor_context(instance=self.instance, resources=given)
        result = replica_repair()(context)
        assert isinstance(result, dg.SensorResult | dg.SkipReason)
        return result

    def skipped(self) -> str:
        """Return why a tick requested no run."""
        result = self.tick()
        assert isinstance(result, dg.SkipReason)
        return str(result.skip_message)

    def requested(self) -> str:
        """Return the differences that the one requested run names."""
        result = self.tick()
        assert isinstance(result, dg.SensorResult)
        (request,) = result.run_requests or ()
        return request.tags["lora_assets/why"]

    def repair(self) -> None:
        names = ("registry", "fleet", "work_folder")
        given = {name: getattr(self.resources, name) for name in names}
        repair_replicas.execute_in_process(instance=self.instance, resources=given)
