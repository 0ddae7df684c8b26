"""What a replica serves."""

from collections.abc import Collection, Mapping

from lora_assets.records import Record
from lora_assets.records.model_version import model_of

LIVE_SLOT = "aws-rag-qa-live"
CANDIDATE_SLOT = "aws-rag-qa-candidate"
"""What clients call (specification, slot-name, candidate-adapter, live-adapter)."""


class Served(Record):
    """One replica: adapters and slots by name, as digests; `damaged` are folders' digests.

    A folder is damaged when its bytes, read on the replica, are not those that its name says. What
    is served from elsewhere than the replica's folder has its whole path in place of a digest.
    `foreign` are entries of that folder which lora-assets never makes.
    `slots` maps those that are links to the names that they stand for.
    """

    replica: str
    adapters: Mapping[str, str]
    damaged: tuple[str, ...] = ()
    foreign: tuple[str, ...] = ()
    slots: Mapping[str, str] = {}

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

    def of_model(self, model: str, own_slots: Collection[str]) -> Mapping[str, str]:
        """Return `adapters` without those that are another model's, and its slots."""
        return {
            name: digest
            for name, digest in self.adapters.items()
            if name in own_slots or model in (owners := self._owners(name)) or not owners
        }

    def _owners(self, name: str) -> set[str]:
        """Return the models that a name may be of: by itself, or by the names of its bytes."""
        if own := model_of(self.slots.get(name, name)):
            return {own}
        alike = (other for other, d in self.adapters.items() if d == self.adapters[name])
        return {model for model in map(model_of, alike) if model is not None}


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
