"""How far a data version got in the graph, and the tags of the runs that took it there."""

from collections.abc import Mapping

from lora_assets.records import Record

PARTITION_TAG = "dagster/partition"
BACKFILL_TAG = "dagster/backfill"
PARTITIONS = "data_version"
"""The partition set that every asset and check shares."""

ANSWERED = "answered by"
"""Metadata of the observation that one side's answers are complete."""


class Progress(Record):
    """A data version's newest results in Dagster's history.

    `made` maps an asset to the event id of its newest materialisation; event ids grow with time.
    `verdicts` maps a gate to its decision on that materialisation, if it has decided on it.
    `baseline_event_id` is the observation that the version was there before the sensor was
    switched on; None for a version that came later.
    """

    data_version: str
    made: Mapping[str, int]
    verdicts: Mapping[str, bool]
    baseline_event_id: int | None
