"""What a replica serves."""

from collections.abc import Mapping

from lora_assets.records import Record


class Served(Record):
    """One replica: adapters and slots by name, as digests; `damaged` are folders' digests.

    A folder is damaged when its bytes, read on the replica, are not those that its name says. What
    is served from elsewhere than the replica's folder has its whole path in place of a digest.
    `foreign` are entries of that folder which lora-assets never makes.
    """

    replica: str
    adapters: Mapping[str, str]
    damaged: tuple[str, ...] = ()
    foreign: tuple[str, ...] = ()

    @property
    def strangers(self) -> tuple[str, ...]:
        """Return what nobody deployed, each as one line; others may have their reasons for it."""
        return (
            *(
                f"{self.replica} serves {name} from {root}"
                for name, root in self.adapters.items()
                if "/" in root
            ),
            *(f"{self.replica} has {entry} in its adapters folder" for entry in self.foreign),
        )


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
