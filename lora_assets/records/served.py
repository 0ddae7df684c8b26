"""What a replica serves."""

from collections.abc import Mapping

from lora_assets.records import Record


class Served(Record):
    """One replica: adapters and slots by name, as digests; `damaged` are folders' digests.

    A folder is damaged when its bytes, read on the replica, are not those that its name says.
    """

    replica: str
    adapters: Mapping[str, str]
    damaged: tuple[str, ...] = ()


class AdapterShape(Record):
    """What an adapter's files ask of a server: `modules` by path in the base model, (out, in)."""

    rank: int
    base_model: str
    modules: Mapping[str, tuple[int, int]]


class ServerLimits(Record):
    """What a server can take; `max_loras` is None for one without LoRA support.

    `base_names` are the names that its base model goes by: served name and source.
    """

    base_names: tuple[str, ...]
    runtime_loading: bool
    max_loras: int | None
