"""What the slots serve, held against what they should."""

import dagster as dg

from lora_assets.errors import LoraAssetsError
from lora_assets.gates import smoke
from lora_assets.records.model_version import ModelVersion
from lora_assets.resources.fleet import Fleet
from lora_assets.resources.registry import Registry
from lora_assets.resources.work_folder import WorkFolder
from lora_assets.serving import adapter_files


def refuse_live_slot(fleet: Fleet, slot: str) -> None:
    """Refuse to deploy to `slot` when it is what clients of the live adapter call."""
    if slot == fleet.live_slot:
        raise LoraAssetsError(
            f"{slot} is the live slot, which only a promotion gives to an adapter",
            "Deploy to the candidate slot, pass the gates, then promote.",
        )


def require_in_slot(fleet: Fleet, slot: str, version: ModelVersion) -> None:
    """Refuse to go on when clients of `slot` get another adapter than `version`."""
    for url, found in fleet.serving(slot).items():
        if found == version.digest:
            continue
        raise LoraAssetsError(
            f"{url} serves {found[:12] if found else 'nothing'} as {slot}, expected version "
            f"{version.version} ({version.digest[:12]})",
            "Deploy that version again, or finish the promotion or rollback that was cut short.",
        )


def take_candidate_place(
    registry: Registry, fleet: Fleet, slot: str, version: ModelVersion, work_folder: WorkFolder
) -> bool:
    """Have `slot` serve `version`, which passed its smoke test; True where it had to be put back.

    There is one candidate place, and between two steps of one version's run another's may
    take it, or a promotion may retire its adapter. Whoever holds the pool puts its own back.
    """
    if slot != fleet.candidate_slot:
        require_in_slot(fleet, slot, version)
        return False
    held = set(fleet.serving(slot).values()) == {version.digest}
    bring(registry, fleet, version, work_folder)
    if held:
        return False
    fleet.renew_slot(slot, version.serving_name, version.digest, smoke.PROMPTS)
    registry.set_alias("staged", version)
    return True


def warn_of_gaps(context: dg.AssetExecutionContext, fleet: Fleet, slot: str) -> None:
    """Say what servers without SlotMiddleware can't give, and what happened instead."""
    for url in fleet.without_slots():
        context.log.warning(
            f"{url} lacks '--middleware lora_assets_vllm.middleware.SlotMiddleware': its slot "
            f"{slot} was unloaded and loaded again, and requests in between got 404"
        )


def slot_table(fleet: Fleet, slot: str, version: ModelVersion) -> dg.TableMetadataValue:
    """What each replica serves as `slot`, read from it, and whether that is `version`."""
    return dg.MetadataValue.table(
        [
            dg.TableRecord(
                {
                    "replica": url,
                    "slot": slot,
                    "digest": digest[:12] if digest else "nothing",
                    "model version": version.version if digest == version.digest else "another",
                    "data version": version.data_version if digest == version.digest else "another",
                }
            )
            for url, digest in fleet.serving(slot).items()
        ]
    )


def live_served(
    registry: Registry, fleet: Fleet, slot: str, work_folder: WorkFolder
) -> ModelVersion | None:
    """The live version, in its slot and loaded under its own name; None before the first."""
    live = registry.aliases().get("live")
    if live is None:
        return None
    require_in_slot(fleet, slot, live)
    bring(registry, fleet, live, work_folder)
    return live


def bring(registry: Registry, fleet: Fleet, version: ModelVersion, work_folder: WorkFolder) -> None:
    """Have every replica serve `version` under its own name, fetching its bytes if need be."""
    if not fleet.holds(version.digest):
        with work_folder.temporary() as folder:
            source = registry.download(version, folder)
            fleet.preflight(adapter_files.inspect(source))
            fleet.place(source, version.digest)
    fleet.load(version.serving_name, version.digest, smoke.PROMPTS)
