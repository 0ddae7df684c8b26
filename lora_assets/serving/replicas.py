"""The replicas of one operation: what is changed is changed on all of them, or on none."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import NoReturn

from lora_assets.errors import LoraAssetsError
from lora_assets.gates.smoke import PROMPTS
from lora_assets.records.base_model import Base
from lora_assets.records.model_version import model_of
from lora_assets.records.served import AdapterShape, Served
from lora_assets.serving import base_proof
from lora_assets.serving.base_shapes import base_modules
from lora_assets.serving.on_each import on_each, on_first_then_each
from lora_assets.serving.preflight import obstacles
from lora_assets.serving.replica import Listing, Replica
from lora_assets.serving.replica_folder import ReplicaFolder
from lora_assets.serving.slot_owner import require_own_slot, require_slot_name

PROBE_TOKENS = 8
"""Few, since a slot is renewed while clients wait: stale blocks are those of the prompt, and show
from the answer's first token on; two adapters part within these on one of the prompts at least."""

LOGPROB_TOLERANCE = 0.05
"""Nats per token. The same weights in another batch differ by rounding (below 0.02 in bf16);
the answers of two adapters differ by tenths to whole nats."""


@dataclass(frozen=True)
class Replicas:
    """The servers that count for one operation, found once (`Fleet.discover`).

    An adapter's rank may be `max_lora_rank`, its modules are those of `base_model`, and
    `candidate_slot` is where a candidate is tried. `waiting` names what is not ready, with its
    folder where that may be reached already. `others_slots` are another model's.
    """

    members: tuple[Replica, ...]
    base_model: str
    max_lora_rank: int
    candidate_slot: str
    waiting: Mapping[str, ReplicaFolder | None] = field(default_factory=dict)
    others_slots: tuple[str, ...] = ()

    @property
    def folders(self) -> Sequence[ReplicaFolder]:
        """Their adapters folders, those that several replicas share but once."""
        return _folders(self.members)

    def unproved(self, base: Base) -> Sequence[str]:
        """Return the replicas of which it can't be told whether they serve this base model.

        Where the server tells its base's digest, that decides; elsewhere its answers do. Raise
        LoraAssetsError for a replica that serves another one.
        """

        def is_unproved(replica: Replica) -> bool:
            listing = replica.listing()
            told = listing.base_identity or ""
            if base_proof.is_told(base, told):
                difference = base_proof.other_files(base, told)
            elif base.answers:
                served = replica.base_answers(listing.base_model)
                difference = base_proof.other_answers(base.answers, served)
            else:
                return True
            if difference is not None:
                raise LoraAssetsError(
                    f"{replica.name} serves another base model ({listing.base_model}) than the "
                    f"adapter was trained on: {difference}",
                    "Serve that base model, or train on this one.",
                )
            return False

        if not base.identity:
            return [replica.name for replica in self.members]
        found = on_each(self.members, is_unproved)
        return [each.name for each, is_one in zip(self.members, found, strict=True) if is_one]

    def preflight(self, adapter: AdapterShape, base_is_proved: bool = False) -> None:
        """Refuse an adapter that some replica can't take, naming the server's flag to change."""
        modules = base_modules(self.base_model)

        def check(replica: Replica) -> None:
            limits = replica.limits()
            against = obstacles(adapter, limits, self.max_lora_rank, modules, base_is_proved)
            if against:
                raise LoraAssetsError(
                    f"{replica.name} can't take the adapter: {'; '.join(against)}",
                    "Nothing was copied; change that and deploy again.",
                )

        on_each(self.members, check)

    def place(self, source: Path, digest: str) -> None:
        """Copy an adapter to every replica's folder, where its digest is taken again.

        One goes first, so that what can't be taken touches no other.
        """
        on_first_then_each(self.folders, lambda folder: folder.place(source, digest))

    def holds(self, digest: str) -> bool:
        """Return whether every replica's folder has the adapter, its bytes as they should be."""
        return all(folder.intact(digest) for folder in self.folders)

    def serving(self, name: str) -> Mapping[str, str | None]:
        """Return the digest that each replica serves as `name`; None for nothing."""
        digests = on_each(self.members, lambda replica: replica.digests().get(name))
        return {replica.name: digest for replica, digest in zip(self.members, digests, strict=True)}

    def served(self) -> Sequence[Served]:
        """Return what each replica serves as digests, the bytes of its folder read again."""
        return [replica.served() for replica in self.members]

    def without_slots(self) -> Sequence[str]:
        """Return those that lack SlotMiddleware: renewing a slot leaves a gap there."""
        return [each.name for each in self.members if each.listing().slots_folder is None]

    def load(self, name: str, digest: str) -> None:
        """Serve the adapter `digest` on every replica under its own name, or on none.

        One replica goes first: an adapter that it can't load or serve reaches no other.
        What another path serves under that name is unloaded, and not put back.
        Its bytes are verified where they lie first. Its answers to PROMPTS must differ from
        the base model's: an adapter that loaded and changes nothing is refused.
        """
        loaded: list[Replica] = []

        def load_one(replica: Replica) -> None:
            replica.folder.verify(digest)
            before, own = replica.listing(), f"{replica.folder.path}/{digest}"
            if before.adapters.get(name, own) != own:
                # A name of ours stands for one digest in our folder: anything else is foreign.
                replica.unload(name)
            replica.load(name, own)
            if before.adapters.get(name) != own:
                loaded.append(replica)
                if _answers_alike(replica, before.base_model, name):
                    raise LoraAssetsError(
                        f"{replica.name} answers as {name} exactly as its base model does",
                        "The adapter changes nothing there: look at how it was trained and at the "
                        "server's log.",
                    )

        try:
            on_first_then_each(self.members, load_one)
            # Only now, since a server finds by itself what has a link.
            on_each(self.folders, lambda folder: folder.set_name(name, digest))
        except LoraAssetsError as error:
            _undo(error, [partial(replica.unload, name) for replica in loaded])

    def require_own_slot(self, slot: str, name: str) -> None:
        """Refuse to give `slot` to the adapter `name` where it is another model's."""

        def check(replica: Replica) -> None:
            link = replica.folder.slots().get(slot)
            self._require_own(slot, name, link, replica.listing())

        on_each(self.members, check)

    def _require_own(self, slot: str, name: str, link: str | None, listing: Listing) -> None:
        require_slot_name(slot, listing.base_names)
        require_own_slot(slot, name, link, listing.adapters, self.others_slots)

    def renew_slot(
        self, slot: str, name: str, digest: str, *, may_go_on: Callable[[], bool] = lambda: True
    ) -> None:
        """Point `slot` at the adapter `digest`, loaded as `name`, on every replica or on none.

        The log-probabilities of the slot's answers to PROMPTS must equal those of `name`. A
        server with SlotMiddleware takes the slot's new link with its next request. Without it
        the slot is unloaded and loaded, and is gone in between. What fails is put back. Nothing is
        changed, nor put back, once this `may_go_on` no longer; a folder refuses where the slot was
        set after that was asked, however long this process stood still.
        """
        before = dict(zip(self.members, on_each(self.members, Replica.listing), strict=True))
        linking = [each for each in self.members if before[each].slots_folder is not None]
        reloading = [each for each in self.members if each not in linking]
        for replica in linking:
            _require_same_folder(replica, str(before[replica].slots_folder))
        # Replicas may share a folder, whose link is then changed once, and put back once.
        former = {folder: folder.slots().get(slot) for folder in _folders(linking)}
        marks = {folder: folder.mark(slot) for folder in former}
        for replica, listing in before.items():
            self._require_own(slot, name, former.get(replica.folder), listing)
        if not may_go_on():
            raise LoraAssetsError(f"Another one is about to set {slot}", "Wait for its end.")
        try:
            on_each(list(former), lambda folder: folder.set_slot(slot, name, marks[folder]))
            on_each(reloading, lambda each: _reload(each, slot, f"{each.folder.path}/{digest}"))
            on_each(self.members, lambda each: _prove(each, slot, name, digest))
        except LoraAssetsError as error:
            if not may_go_on():
                raise
            _undo(
                error,
                [
                    *(partial(_relink, each, slot, former[each], may_go_on) for each in former),
                    *(partial(_reload, e, slot, before[e].adapters.get(slot)) for e in reloading),
                ],
            )

    def retire(self, keep: Sequence[str], model: str | None = None) -> None:
        """Unload and remove adapters (of `model`) but for those in `keep` and those in a slot."""

        def is_anothers(name: str) -> bool:
            return model is not None and model_of(name) != model

        kept = {folder: set(keep) for folder in self.folders}
        if model is not None:
            for folder in kept:
                links = folder.names().items()
                kept[folder] |= {digest for name, digest in links if is_anothers(name)}

        def unload(replica: Replica) -> None:
            in_slots = replica.folder.slots().values()
            for name, folder in replica.loaded().items():
                digest = Path(folder).name
                own = name.endswith(digest[:12]) and not is_anothers(name)
                if not own or name in in_slots:
                    kept[replica.folder].add(digest)
                elif digest not in keep:
                    replica.unload(name)

        on_each(self.members, unload)
        on_each(list(kept), lambda folder: folder.prune(sorted(kept[folder])))


def same_logprobs(one: Sequence[float], other: Sequence[float]) -> bool:
    """Return whether two greedy answers have as many tokens and equal log-probabilities."""
    return len(one) == len(other) and all(
        abs(a - b) <= LOGPROB_TOLERANCE for a, b in zip(one, other, strict=True)
    )


def _folders(replicas: Iterable[Replica]) -> Sequence[ReplicaFolder]:
    return list(dict.fromkeys(replica.folder for replica in replicas))


def _undo(error: LoraAssetsError, steps: Sequence[Callable[[], None]]) -> NoReturn:
    """Undo what was done, all of it, and raise what went wrong."""
    try:
        on_each(steps, lambda step: step())
    except LoraAssetsError as undoing:
        raise LoraAssetsError(
            f"{error.cause}; not put back: {undoing.cause}", error.remedy
        ) from None
    raise error


def _relink(
    folder: ReplicaFolder, slot: str, name: str | None, may_go_on: Callable[[], bool]
) -> None:
    seen = folder.mark(slot)
    if not may_go_on():
        return
    if name is None:
        folder.clear_slot(slot, seen)
    else:
        folder.set_slot(slot, name, seen)


def _reload(replica: Replica, slot: str, folder: str | None) -> None:
    if replica.loaded().get(slot) != folder:
        replica.unload(slot)
        if folder is not None:
            replica.load(slot, folder)


def _prove(replica: Replica, slot: str, name: str, digest: str) -> None:
    if not _answers_alike(replica, name, slot):
        raise LoraAssetsError(
            f"{replica.name} answers as {slot} with other weights than as {name}",
            "Its cache mixes adapters; restart that replica and run this again.",
        )
    serves, expected = replica.loaded().get(slot), f"{replica.folder.path}/{digest}"
    if serves != expected:
        raise LoraAssetsError(
            f"{replica.name} serves {serves or 'nothing'} as {slot}, expected {expected}",
            "Run this again; if it stays so, restart that replica.",
        )


def _require_same_folder(replica: Replica, reads: str) -> None:
    if Path(reads) != Path(replica.folder.path):
        raise LoraAssetsError(
            f"{replica.name} reads its slots from {reads}, adapters are put into "
            f"{replica.folder.path}",
            "Set ADAPTERS_DIR to one folder, for that server and for lora-assets.",
        )


def _answers_alike(replica: Replica, one: str, other: str) -> bool:
    def answers(name: str) -> Sequence[Sequence[float]]:
        return on_each(PROMPTS, lambda each: replica.complete(name, each, PROBE_TOKENS).logprobs)

    # Name by name: vLLM on a CPU mixes base and adapter up in one batch (docs/facts.md).
    return all(map(same_logprobs, answers(one), answers(other)))
