"""Keeps what an asset returns, one JSON document per asset and partition."""

from typing import Any

import dagster as dg
from pydantic import Field, TypeAdapter, ValidationError

from lora_assets.errors import LoraAssetsError, validation_line
from lora_assets.records import Record
from lora_assets.resources.object_store import NO_S3, ObjectStore
from lora_assets.resources.signature import read_signed, signed


class RecordIOManager(dg.ConfigurableIOManager):
    """Stores an asset's record in the bucket, so that steps can run on different machines.

    With a `verdict_key`, a record that is not signed with it is refused: a gate would decide on it.
    """

    uri: str
    verdict_key: str = Field("", repr=False)
    s3: dg.ResourceDependency[Any] = NO_S3

    @property
    def store(self) -> ObjectStore:
        return ObjectStore(self.uri, self.s3)

    def handle_output(self, context: dg.OutputContext, obj: Record | None) -> None:
        if obj is not None:
            key, text = _key(context), obj.model_dump_json(indent=1)
            self.store.put(key, signed(self.verdict_key, key, text).encode())

    def load_input(self, context: dg.InputContext) -> Record:
        key = _key(context)
        content = self.store.get(key)
        if content is None:
            asset, partition = context.asset_key.to_user_string(), context.asset_partition_key
            raise LoraAssetsError(
                f"{asset} of data version {partition} has not been made yet",
                f"Materialise {asset} for this partition first.",
            )
        text, wrong = read_signed(self.verdict_key, key, content.decode(errors="replace"))
        kind = TypeAdapter[Record](context.dagster_type.typing_type)
        try:
            record = kind.validate_json(text)
        except ValidationError as error:
            wrong = wrong or f"it can't be read ({validation_line(error)})"
        if wrong:
            raise LoraAssetsError(
                f"The record {key} does not count: {wrong}",
                "Materialise that asset again for this partition.",
            )
        return record


def _key(context: dg.InputContext | dg.OutputContext) -> str:
    asset = context.asset_key.to_user_string()
    return f"lora-assets/records/{asset}/{context.asset_partition_key}.json"
