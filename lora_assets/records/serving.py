"""What a replica serves."""

from collections.abc import Mapping

from lora_assets.records import Record


class Served(Record):
    """One replica: adapters and slots by name, as digests; `damaged` are folders' digests.

    A folder is damaged when its bytes, read on the replica, are not those that its name says.
    """

    url: str
    adapters: Mapping[str, str]
    damaged: tuple[str, ...] = ()
