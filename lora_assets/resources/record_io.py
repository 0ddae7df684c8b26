"""Keeps what an asset returns, one JSON document per asset and partition."""

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


def _key(context: dg.InputContext | dg.OutputContext) -> str:
    asset = context.asset_key.to_user_string()
    return f"lora-assets/records/{asset}/{context.asset_partition_key}.json"
