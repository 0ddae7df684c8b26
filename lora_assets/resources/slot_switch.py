"""One replica's part of a deployment, each step with the way back to the state before."""

from collections.abc import Callable, Sequence
from pathlib import Path

from lora_assets.errors import LoraAssetsError
from lora_assets.gates.same_weights import same_logprobs
from lora_assets.resources.replica import Completion, Listing, Replica

PROBE_TOKENS = 16

Undo = Callable[[], None]


def load_named(replica: Replica, name: str, digest: str, prompts: Sequence[str]) -> Undo:
    """Serve an adapter under its own name; refused when it answers as the base model does."""
    replica.folder.verify(digest)
    replica.folder.set_name(name, digest)
    before = replica.listing()
    replica.load(name, f"{replica.folder.path}/{digest}")

    def undo() -> None:
        if name not in before.adapters:
            replica.unload(name)

    if name not in before.adapters and not _differs(replica, name, before.base_model, prompts):
        undo()
        raise LoraAssetsError(
            f"{replica.url} answers as {name} exactly as its base model does",
            "The adapter changes nothing there: look at how it was trained and at the "
            "server's log.",
        )
    return undo


def renew(replica: Replica, slot: str, name: str, digest: str, prompts: Sequence[str]) -> Undo:
    """Let `slot` answer as `name` does, and prove it on prompts that the slot answered before."""
    folder = f"{replica.folder.path}/{digest}"
    before = replica.listing()
    if before.slots_folder is None:
        undo = _reload(replica, slot, folder, before)
    else:
        undo = _relink(replica, slot, name, before)
    try:
        for prompt in prompts:
            meant, found = _answer(replica, name, prompt), _answer(replica, slot, prompt)
            if not same_logprobs(meant.logprobs, found.logprobs):
                raise LoraAssetsError(
                    f"{replica.url} answers as {slot} with other weights than as {name}",
                    "Its cache mixes adapters; restart that replica and run this again.",
                )
        serves = replica.loaded().get(slot)
        if serves != folder:
            raise LoraAssetsError(
                f"{replica.url} serves {serves or 'nothing'} as {slot}, expected {folder}",
                "Run this again; if it stays so, restart that replica.",
            )
    except LoraAssetsError:
        undo()
        raise
    return undo


def _relink(replica: Replica, slot: str, name: str, before: Listing) -> Undo:
    """Replace the slot's link: the request after it is the first to get the new adapter."""
    if Path(before.slots_folder or "") != Path(replica.folder.path):
        raise LoraAssetsError(
            f"{replica.url} reads its slots from {before.slots_folder}, adapters are put into "
            f"{replica.folder.path}",
            "Set ADAPTERS_DIR to one folder, for that server and for lora-assets.",
        )
    former = replica.folder.contents()["slots"].get(slot)
    replica.folder.set_slot(slot, name)

    def undo() -> None:
        if former is not None:
            replica.folder.set_slot(slot, former)
        else:
            replica.folder.clear_slot(slot)

    return undo


def _reload(replica: Replica, slot: str, folder: str, before: Listing) -> Undo:
    """Unload and load: for a server without SlotMiddleware, where the slot is gone in between."""
    former = before.adapters.get(slot)
    if former != folder:
        replica.unload(slot)
        replica.load(slot, folder)

    def undo() -> None:
        if former != folder:
            replica.unload(slot)
            if former is not None:
                replica.load(slot, former)

    return undo


def _differs(replica: Replica, name: str, base: str, prompts: Sequence[str]) -> bool:
    return not all(
        same_logprobs(
            _answer(replica, base, prompt).logprobs, _answer(replica, name, prompt).logprobs
        )
        for prompt in prompts
    )


def _answer(replica: Replica, model: str, prompt: str) -> Completion:
    return replica.complete(model, prompt, PROBE_TOKENS)
