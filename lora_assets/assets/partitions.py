"""The partition set that every asset and check shares."""

import dagster as dg

data_versions = dg.DynamicPartitionsDefinition(name="data_version")
