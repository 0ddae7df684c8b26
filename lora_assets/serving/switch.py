"""Loading an adapter and renewing a slot on all replicas, or on none of them."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import NoReturn

from lora_assets.errors import LoraAssetsError
from lora_assets.serving.each_replica import on_each
from lora_assets.serving.replica import Completion, Listing, Replica
from lora_assets.serving.replica_folder import ReplicaFolder, once_each
from lora_assets.serving.same_weights import same_logprobs

PROBE_TOKENS = 8
"""Few, since a slot is renewed while clients wait: stale blocks are those of the prompt, and show
from the answer's first token on; two adapters part within these on one of the prompts at least."""


def load(replicas: Sequence[Replica], name: str, digest: str, prompts: Sequence[str]) -> None:
    """Serve an adapter under its own name; refused where it answers as the base model does."""
    loaded: list[Replica] = []

    def load_one(replica: Replica) -> None:
        replica.folder.verify(digest)
        before = replica.listing()
        replica.load(name, f"{replica.folder.path}/{digest}")
        if name not in before.adapters:
            loaded.append(replica)
            _require_difference(replica, name, before.base_model, prompts)

    try:
        on_each(replicas, load_one)
        # Only now, since a server finds by itself what has a link.
        folders = once_each(replica.folder for replica in replicas)
        on_each(folders, lambda folder: folder.set_name(name, digest))
    except LoraAssetsError as error:
        _put_back(error, [partial(replica.unload, name) for replica in loaded])


def renew(
    replicas: Sequence[Replica], slot: str, name: str, digest: str, prompts: Sequence[str]
) -> None:
    """Let `slot` answer as `name` does, and prove it on prompts that the slot answered before.

    A server with SlotMiddleware takes the slot's new link with its next request. Without it
    the slot is unloaded and loaded, and is gone in between.
    """
    before: dict[Replica, Listing] = {}

    def look(replica: Replica) -> None:
        before[replica] = replica.listing()

    on_each(replicas, look)
    linking = [replica for replica in replicas if before[replica].slots_folder is not None]
    for replica in linking:
        _require_same_folder(replica, str(before[replica].slots_folder))
    # Replicas may share a folder, whose link is then changed once, and put back once.
    folders = once_each(replica.folder for replica in linking)
    former = {folder: folder.slots().get(slot) for folder in folders}
    reloading = [replica for replica in replicas if replica not in linking]
    try:
        on_each(folders, lambda folder: folder.set_slot(slot, name))
        on_each(
            reloading,
            lambda replica: _reload(replica, slot, f"{replica.folder.path}/{digest}"),
        )
        on_each(replicas, lambda replica: _prove(replica, slot, name, digest, prompts))
    except LoraAssetsError as error:
        links = [partial(_relink, folder, slot, target) for folder, target in former.items()]
        slots = [
            partial(_reload, each, slot, before[each].adapters.get(slot)) for each in reloading
        ]
        _put_back(error, [*links, *slots])


def _put_back(error: LoraAssetsError, steps: Sequence[Callable[[], None]]) -> NoReturn:
    """Undo what was done, all of it, and raise what went wrong."""
    try:
        on_each(steps, lambda step: step())
    except LoraAssetsError as undoing:
        raise LoraAssetsError(
            f"{error.cause}; not put back: {undoing.cause}", error.remedy
        ) from None
    raise error


def _relink(folder: ReplicaFolder, slot: str, name: str | None) -> None:
    if name is None:
        folder.clear_slot(slot)
    else:
        folder.set_slot(slot, name)


def _prove(replica: Replica, slot: str, name: str, digest: str, prompts: Sequence[str]) -> None:
    for prompt in prompts:
        meant, found = _answer(replica, name, prompt), _answer(replica, slot, prompt)
        if not same_logprobs(meant.logprobs, found.logprobs):
            raise LoraAssetsError(
                f"{replica.url} answers as {slot} with other weights than as {name}",
                "Its cache mixes adapters; restart that replica and run this again.",
            )
    serves, expected = replica.loaded().get(slot), f"{replica.folder.path}/{digest}"
    if serves != expected:
        raise LoraAssetsError(
            f"{replica.url} serves {serves or 'nothing'} as {slot}, expected {expected}",
            "Run this again; if it stays so, restart that replica.",
        )


def _reload(replica: Replica, slot: str, folder: str | None) -> None:
    if replica.loaded().get(slot) != folder:
        replica.unload(slot)
        if folder is not None:
            replica.load(slot, folder)


def _require_same_folder(replica: Replica, reads: str) -> None:
    if Path(reads) != Path(replica.folder.path):
        raise LoraAssetsError(
            f"{replica.url} reads its slots from {reads}, adapters are put into "
            f"{replica.folder.path}",
            "Set ADAPTERS_DIR to one folder, for that server and for lora-assets.",
        )


def _require_difference(replica: Replica, name: str, base: str, prompts: Sequence[str]) -> None:
    for prompt in prompts:
        plain, adapted = _answer(replica, base, prompt), _answer(replica, name, prompt)
        if not same_logprobs(plain.logprobs, adapted.logprobs):
            return
    raise LoraAssetsError(
        f"{replica.url} answers as {name} exactly as its base model does",
        "The adapter changes nothing there: look at how it was trained and at the server's log.",
    )


def _answer(replica: Replica, model: str, prompt: str) -> Completion:
    return replica.complete(model, prompt, PROBE_TOKENS)
