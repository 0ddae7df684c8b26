"""Keeps what an asset returns, one JSON document per asset and partition."""

from collections.abc import Mapping
from typing import Any

import dagster as dg
from pydantic import TypeAdapter

from lora_assets.errors import LoraAssetsError
from lora_assets.records import Record
from lora_assets.resources.object_store import NO_S3, ObjectStore


class RecordIOManager(dg.ConfigurableIOManager):
    """Stores an asset's record in the bucket, so that steps can run on different machines."""

    uri: str
    s3: dg.ResourceDependency[Any] = NO_S3

    def setup_for_execution(self, context: dg.InitResourceContext) -> None:
        """Refuse a run that was told to read variables of its pod, keys among them.

        Every step begins here, and Dagster has put their values into the configuration by then.
        """
        named = context.run and _variable(context.run.run_config)
        if named:
            raise LoraAssetsError(
                f"The run's configuration reads the environment variable {named} of its pod",
                f"Give the value itself in place of {{env: {named}}}.",
            )

    @property
    def store(self) -> ObjectStore:
        return ObjectStore(self.uri, self.s3)

    def handle_output(self, context: dg.OutputContext, obj: Record | None) -> None:
        if obj is not None:
            self.store.put(_key(context), obj.model_dump_json(indent=1).encode())

    def load_input(self, context: dg.InputContext) -> Record:
        key = _key(context)
        content = self.store.get(key)
        if content is None:
            asset, partition = context.asset_key.to_user_string(), context.asset_partition_key
            raise LoraAssetsError(
                f"{asset} of data version {partition} has not been made yet",
                f"Materialise {asset} for this partition first.",
            )
        record: Record = TypeAdapter[Any](context.dagster_type.typing_type).validate_json(content)
        return record


def _variable(config: object) -> str | None:
    """Return the first variable that a run's configuration names; None where it names none."""
    if not isinstance(config, Mapping):
        return None
    if set(config) == {"env"} and isinstance(config["env"], str):
        return config["env"]
    return next(filter(None, map(_variable, config.values())), None)


def _key(context: dg.InputContext | dg.OutputContext) -> str:
    asset = context.asset_key.to_user_string()
    return f"lora-assets/records/{asset}/{context.asset_partition_key}.json"
