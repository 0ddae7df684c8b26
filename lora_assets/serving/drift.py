"""Where replicas serve something else than the registry's aliases say."""

from collections.abc import Mapping, Sequence

from lora_assets.records import Record, short
from lora_assets.records.model_version import Alias, ModelVersion
from lora_assets.records.served import Served

KEPT: tuple[Alias, ...] = ("live", "staged", "previous")
"""The aliases whose adapters every replica must have loaded, in the order of their weight."""


class Drift(Record):
    """A replica that serves something else than it should; digests, None for nothing."""

    replica: str
    name: str
    expected: str
    found: str | None

    def __str__(self) -> str:
        served, expected = short(self.found), short(self.expected)
        return f"{self.replica} serves {served} as {self.name}, expected {expected}"


def drifts(
    aliases: Mapping[str, ModelVersion],
    live_slot: str,
    candidate_slot: str,
    served: Sequence[Served],
) -> tuple[Drift, ...]:
    """Return every difference, replica by replica; a damaged adapter counts as not served.

    In the candidate slot only its absence is one: another adapter there is a newer candidate
    that has yet to pass its smoke test.
    """
    expected = {v.serving_name: v.digest for a, v in aliases.items() if a in KEPT}
    if "live" in aliases:
        expected[live_slot] = aliases["live"].digest
    if "staged" in aliases:
        expected[candidate_slot] = aliases["staged"].digest
    different: list[Drift] = []
    for replica in served:
        for name, digest in expected.items():
            serves = replica.adapters.get(name)
            if serves in replica.damaged:
                serves = None
            newer = name == candidate_slot and serves is not None and "/" not in serves
            if serves == digest or newer:
                continue
            different.append(
                Drift(replica=replica.replica, name=name, expected=digest, found=serves)
            )
    return tuple(different)
