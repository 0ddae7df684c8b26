"""What the slots serve, held against what they should."""

import dagster as dg

from lora_assets.assets.pages import Table, table
from lora_assets.errors import LoraAssetsError
from lora_assets.records import short
from lora_assets.records.model_version import ModelVersion, model_of
from lora_assets.resources.fleet import Fleet
from lora_assets.resources.registry import Registry
from lora_assets.resources.work_folder import WorkFolder
from lora_assets.serving import adapter_files
from lora_assets.serving.replica_folder import ReplicaFolder
from lora_assets.serving.replicas import Replicas
from lora_assets.serving.slot_owner import require_own_slot, require_slot_name


def refuse_live_slot(fleet: Fleet, slot: str) -> None:
    """Refuse to deploy to `slot` when it is what clients of the live adapter call."""
    if slot == fleet.live_slot:
        raise LoraAssetsError(
            f"{slot} is the live slot, which only a promotion gives to an adapter",
            "Deploy to the candidate slot, pass the gates, then promote.",
        )


def refuse_candidate_slot(fleet: Fleet, slot: str) -> None:
    """Refuse to give the live traffic to `slot` when it is where candidates are tried."""
    if slot == fleet.candidate_slot:
        raise LoraAssetsError(
            f"{slot} is the candidate slot, whose clients are not those of live",
            "Leave the slot out, or name the one that clients of live call.",
        )


def require_in_slot(replicas: Replicas, slot: str, version: ModelVersion) -> None:
    """Refuse to go on when clients of `slot` get another adapter than `version`."""
    for replica, digest in replicas.serving(slot).items():
        if digest == version.digest:
            continue
        raise LoraAssetsError(
            f"{replica} serves {short(digest)} as {slot}, expected version {version.version} "
            f"({short(version.digest)})",
            "Deploy that version again, or finish the promotion or rollback that was cut short.",
        )


def ensure_loaded(
    registry: Registry, replicas: Replicas, version: ModelVersion, work_folder: WorkFolder
) -> None:
    """Have every replica serve `version` under its own name, fetching its bytes if need be.

    Refused where a replica serves another base model than it was trained on.
    """
    unproved = replicas.unproved(registry.base(version))
    if unproved:
        dg.get_dagster_logger().warning(
            f"not proved that {', '.join(unproved)} serves the base model that "
            f"{version.serving_name} was trained on: no base is kept with it"
        )
    if not replicas.holds(version.digest):
        with work_folder.temporary() as folder:
            source = registry.download(version, folder)
            replicas.preflight(adapter_files.inspect(source), not unproved)
            replicas.place(source, version.digest)
    replicas.load(version.serving_name, version.digest)


def put_in_folder(
    registry: Registry,
    folder: ReplicaFolder,
    version: ModelVersion,
    work_folder: WorkFolder,
    slot: str | None,
) -> None:
    """Put `version`, and `slot` on it, where a server that does not answer yet will find them."""
    if not folder.intact(version.digest):
        with work_folder.temporary() as work:
            folder.place(registry.download(version, work), version.digest)
    folder.set_name(version.serving_name, version.digest)
    if slot is not None:
        require_slot_name(slot)
        require_own_slot(slot, version.serving_name, folder.slots().get(slot), {})
        folder.set_slot(slot, version.serving_name)


def ensure_candidate_slot(
    registry: Registry, replicas: Replicas, slot: str, version: ModelVersion, work: WorkFolder
) -> bool:
    """Have `slot` serve `version`, which passed its smoke test; True where it had to be put back.

    There is one candidate slot, and between two steps of one version's run another's may
    take it, or a promotion may retire its adapter. Whoever holds the pool puts its own back.
    """
    if slot != replicas.candidate_slot:
        require_in_slot(replicas, slot, version)
        return False
    held = set(replicas.serving(slot).values()) == {version.digest}
    ensure_loaded(registry, replicas, version, work)
    if held:
        return False
    replicas.renew_slot(slot, version.serving_name, version.digest)
    registry.set_alias("staged", version)
    return True


def live_served(
    registry: Registry, replicas: Replicas, slot: str, work_folder: WorkFolder
) -> ModelVersion | None:
    """Return the live version, in its slot and loaded by name; None before the first.

    Refused where the registry knows none and a replica does: absolute limits alone would judge.
    """
    if (live := registry.current_live()) is not None:
        require_in_slot(replicas, slot, live)
        ensure_loaded(registry, replicas, live, work_folder)
        return live
    for replica in replicas.members:
        loaded = replica.loaded()
        for name, folder in loaded.items():
            if folder == loaded.get(slot) and model_of(name) == registry.model_name:
                raise LoraAssetsError(
                    f"{replica.name} serves {name} as {slot}, but {registry.model_name} has no "
                    "live version: its alias and its history are gone",
                    "Set the alias 'live' to that version again. For a new start empty the "
                    "replicas' adapters folders and restart them.",
                )
    return None


def warn_of_gaps(
    context: dg.AssetExecutionContext | dg.OpExecutionContext, replicas: Replicas, slot: str
) -> None:
    """Say what servers without SlotMiddleware can't give, and what happened instead."""
    for replica in replicas.without_slots():
        context.log.warning(
            f"{replica} lacks '--middleware lora_assets_vllm.middleware.SlotMiddleware': its slot "
            f"{slot} was unloaded and loaded again, and requests in between got 404"
        )


def slot_table(replicas: Replicas, slot: str, version: ModelVersion) -> Table:
    """Return what each replica serves as `slot`, read from it, and whether that is `version`."""
    return table(
        {
            "replica": replica,
            "slot": slot,
            "digest": short(digest),
            "model version": version.version if digest == version.digest else "another",
            "data version": version.data_version if digest == version.digest else "another",
        }
        for replica, digest in replicas.serving(slot).items()
    )
