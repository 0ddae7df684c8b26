"""The partition set that every asset and check shares."""

import dagster as dg

from lora_assets.records.progress import PARTITIONS

data_versions = dg.DynamicPartitionsDefinition(name=PARTITIONS)
