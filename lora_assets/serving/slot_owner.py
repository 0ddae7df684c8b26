"""Whose a slot is: one model's adapters have it, and no other's."""

from collections.abc import Collection, Mapping

from lora_assets.errors import LoraAssetsError
from lora_assets.records.model_version import model_of


def require_slot_name(slot: str, base_names: Collection[str] = ()) -> None:
    """Refuse a slot that has the name of a model version, or of a server's base model."""
    whose = "the base model" if slot in base_names else "a model version"
    if slot in base_names or model_of(slot) is not None:
        raise LoraAssetsError(
            f"{slot} can't be a slot: it is the name of {whose}",
            "Give the slot another name: --slot-name, or LIVE_SLOT and CANDIDATE_SLOT.",
        )


def require_own_slot(
    slot: str,
    name: str,
    link: str | None,
    loaded: Mapping[str, str],
    others_slots: Collection[str] = (),
) -> None:
    """Refuse to give `slot` to the adapter `name` where it is another model's.

    It is another's where it is among `others_slots`, or where what it stands for has another
    model's name: its `link`, or without one the names `loaded` from the same folder as it.
    """
    alike = [other for other, folder in loaded.items() if folder == loaded.get(slot)]
    models = {model_of(holder) for holder in ([link] if link else alike)} - {None}
    model = model_of(name)
    if slot in others_slots or (model is not None and models and model not in models):
        raise LoraAssetsError(
            f"{slot} is a slot of {', '.join(sorted(map(str, models))) or 'another model'}, "
            f"not of {model}",
            "Give each model slots of its own: --slot-name, or LIVE_SLOT and CANDIDATE_SLOT.",
        )
