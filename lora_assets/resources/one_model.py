"""Which of several models a registry is about: in a run, the model of the run's partition."""

from typing import Any, Self

import dagster as dg
from pydantic import Field

from lora_assets.errors import LoraAssetsError
from lora_assets.records.model_version import ModelVersion
from lora_assets.records.partition import data_version_of, model_of, partition_of
from lora_assets.records.progress import PARTITION_TAG
from lora_assets.resources.mlflow_client import NAME


def partition_of_run(context: dg.InitResourceContext) -> str | None:
    """Return the partition of the run that a resource is made for; None without one."""
    return context.run.tags.get(PARTITION_TAG) if context.run else None


class OneModel(dg.ConfigurableResource[Any]):
    """What is about the model `model_name`, in a deployment whose own one is `own_model`.

    Left out, that is `model_name`, but not in a run's configuration: there Dagster asks for it.
    """

    model_name: str = Field(pattern=NAME)
    own_model: str

    def __init__(self, **fields: Any) -> None:
        super().__init__(**{"own_model": fields.get("model_name", ""), **fields})

    def create_resource(self, context: dg.InitResourceContext) -> Self:
        """Return this for the model of the run's partition; refuse a configuration for another."""
        partition = partition_of_run(context)
        model = model_of(partition or "", self.own_model)
        if self.model_name not in (self.own_model, model):
            data_version = data_version_of(partition or "1")
            meant = partition_of(data_version, self.model_name, self.own_model)
            raise LoraAssetsError(
                f"The run is configured for {self.model_name}, but "
                f"{f'partition {partition}' if partition else 'one without partition'} is of "
                f"{model}",
                f"Run partition {meant} (or tag the run {PARTITION_TAG}={meant}), and leave "
                "model_name as it is.",
            )
        return self.of_model(model)

    def partition(self, version: ModelVersion) -> str:
        """Return the partition of a version's data version and model."""
        return partition_of(version.data_version, version.model, self.own_model)

    def of_model(self, model: str) -> Self:
        """Return the same for `model`."""
        if model == self.model_name:
            return self
        return type(self)(**{**dict(self), "model_name": model})

    def require_own(self, version: ModelVersion) -> None:
        """Refuse a version of another model: its number is another adapter's here."""
        if version.model != self.model_name:
            raise LoraAssetsError(
                f"Version {version.version} is of {version.model}, not of {self.model_name}",
                f"Name its model (--model-name {version.model}), or train for {self.model_name}.",
            )
