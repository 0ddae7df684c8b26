"""How far a data version got in the graph."""

from collections.abc import Mapping

from lora_assets.records import Record


class Progress(Record):
    """A data version's newest results, as Dagster's history has them.

    `made` maps an asset to the number of its newest materialisation (numbers grow with
    time, over all assets and notes). `verdicts` maps a gate to its decision on that
    materialisation; one that has not decided on it yet is absent. `noted` is the number of
    the note that the version was there before the sensor was switched on, None for one that
    came later.
    """

    data_version: str
    made: Mapping[str, int]
    verdicts: Mapping[str, bool]
    noted: int | None
