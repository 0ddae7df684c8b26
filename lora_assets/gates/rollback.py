"""Rollback: what it goes back to, what is never made live again by itself, what is live."""

from collections.abc import Mapping, Sequence

from lora_assets.errors import LoraAssetsError
from lora_assets.records.history import LIVE, Change, Standing
from lora_assets.records.model_version import Action, ModelVersion, Promotion


def recorded_live(last: Promotion | None, history: Sequence[Change]) -> ModelVersion | int | None:
    """Return the version that the records say is live, or its number; None before the first.

    A release without a history leaves no entry, but the record of what it promoted last.
    """
    if last is not None and last.done and all(last.run_id != entry.run_id for entry in history):
        return last.version
    return next((entry.version for entry in reversed(history) if entry.outcome == LIVE), None)


def rejected(history: Sequence[Change]) -> Mapping[int, Change]:
    """Return the versions that were rolled back, each with the rollback that did it.

    One that a person has named since is not among them.
    """
    marked: dict[int, Change] = {}
    for entry in history:
        if entry.outcome == LIVE:
            if entry.action == "rollback" and entry.replaced is not None:
                marked[entry.replaced] = entry
            marked.pop(entry.version, None)
    return marked


def reason_against_rejected(version: ModelVersion, history: Sequence[Change]) -> tuple[str, ...]:
    """Return why a promotion may not make a version live that was rolled back; else nothing."""
    mark = rejected(history).get(version.version)
    return (f"it was rolled back ({mark.asked})",) if mark is not None else ()


def settled_by(standing: Standing) -> Change | None:
    """Return the rollback after which there is nothing more to roll back; None where there is.

    It was the last to change what is live: to go back further, a person names the version.
    """
    live = [entry for entry in standing.history if entry.outcome == LIVE]
    is_last = standing.unfinished is None and standing.live is not None and bool(live)
    if not is_last or standing.live is None or live[-1].version != standing.live.version:
        return None
    return live[-1] if live[-1].action == "rollback" else None


def live_since(standing: Standing) -> Change | None:
    """Return the entry by which what is live became live; None where the history has none."""
    since = None
    for entry in (each for each in reversed(standing.history) if each.outcome == LIVE):
        if standing.live is None or entry.version != standing.live.version:
            break
        since = entry
    return since


def rollback_target(standing: Standing, model: str) -> int:
    """Return the number of the version that a rollback without a name goes back to.

    That is what the promotion that is under way or was cut short was to replace; else `previous`,
    if the history knows that it was live; else what was live before. A rollback that was cut
    short goes on. What was rolled back is left out. Raise LoraAssetsError where nothing is left.
    """
    cut_short = standing.unfinished
    if cut_short is not None and cut_short.action in ("rollback", "return"):
        return cut_short.version.version
    if cut_short is not None and cut_short.action == "promotion" and cut_short.replaced:
        return cut_short.replaced.version
    previous = standing.aliases.get("previous")
    if previous is None and not standing.history:
        raise LoraAssetsError(
            f"Alias 'previous' of {model} is not set",
            "See 'lora-assets status' for the aliases there are.",
        )
    order = was_live(standing.history)
    if previous is not None and (previous.version in order or not order):
        order.insert(0, previous.version)
    not_again = {*rejected(standing.history), standing.live.version if standing.live else 0}
    for number in order:
        if number not in not_again:
            return number
    raise LoraAssetsError(
        f"{model} has no version to go back to: every version that was live before has been "
        "rolled back",
        "Name one with --to VERSION ('lora-assets history' lists them), or promote another.",
    )


def require_was_live(standing: Standing, version: ModelVersion) -> None:
    """Refuse to give live to a version that never was: only its gates may say that it can be."""
    previous = standing.aliases.get("previous")
    # A deployment from before the history.
    known = was_live(standing.history) or ([previous.version] if previous else [])
    if version.version not in known:
        raise LoraAssetsError(
            f"Version {version.version} was never live, as far as the history goes",
            "Promote it, past its gates; 'lora-assets history' lists what was live.",
        )


def kind_of(standing: Standing, version: ModelVersion) -> Action:
    """Return what it is to give live to `version`, which was live before."""
    return "return" if version.version in rejected(standing.history) else "rollback"


def next_previous(standing: Standing, planned: Promotion) -> int | None:
    """Return the number of the version that becomes `previous`; None where it stays.

    That is what was live. A promotion that was cut short before its version was live leaves its
    `previous` behind, in whose place comes what was live before.
    """
    if planned.action != "rollback" or standing.live != planned.version:
        return planned.replaced.version if planned.replaced else None
    entries = (each for each in reversed(standing.history) if each.outcome == LIVE)
    return next((e.replaced for e in entries if e.version == planned.version.version), None)


def was_live(history: Sequence[Change]) -> list[int]:
    """Return the versions that were live after and before each entry, the last ones first."""
    entries = [entry for entry in reversed(history) if entry.outcome == LIVE]
    return [n for entry in entries for n in (entry.version, entry.replaced) if n is not None]
