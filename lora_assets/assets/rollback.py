"""Rollback: the live traffic back to a version that had it, ahead of everything else."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import dagster as dg

from lora_assets.assets.graph import ROLLBACK
from lora_assets.assets.live_switch import LiveSwitch
from lora_assets.assets.pages import origin, pages_of, table
from lora_assets.assets.served import slot_table, warn_of_gaps
from lora_assets.gates.rollback import (
    kind_of,
    live_since,
    require_was_live,
    rollback_target,
    settled_by,
)
from lora_assets.kubernetes.step_pods import step_pod
from lora_assets.lifecycle import PROMOTION
from lora_assets.parameters import RollbackOptions
from lora_assets.records import short
from lora_assets.records.history import Standing
from lora_assets.records.model_version import ModelVersion, Promotion
from lora_assets.records.run_tags import requested_by
from lora_assets.resources.fleet import Fleet
from lora_assets.resources.registry import Registry
from lora_assets.resources.work_folder import WorkFolder

SHOWN_CHANGES = 20
"""Entries of the history on a page, the newest first."""


class RollbackConfig(RollbackOptions, dg.Config):
    """Where to go back to, as parameters of the run."""


@dataclass(frozen=True)
class Rollback:
    """A rollback that a run was asked for: what it would do as things stand."""

    registry: Registry
    config: RollbackOptions
    run_id: str = ""
    by: str = ""

    def plan(self, standing: Standing) -> Promotion | None:
        """Return what takes the live traffic from what; None where there is nothing to do."""
        if self.nothing_to_do(standing) is not None:
            return None
        number = self.config.to or rollback_target(standing, self.registry.model_name)
        version = self.registry.resolve(f"version:{number}")
        if self.config.to is not None:
            require_was_live(standing, version)
        cut_short, replaced = standing.unfinished, standing.live
        if cut_short is not None and replaced == version:
            # It got the slot on some replica, at most.
            is_rollback = cut_short.version == version
            replaced = cut_short.replaced if is_rollback else cut_short.version
        return Promotion(
            source_alias="previous",
            version=version,
            replaced=replaced,
            run_id=self.run_id,
            action=kind_of(standing, version),
            by=self.by,
            why=self.config.reason,
        )

    def nothing_to_do(self, standing: Standing) -> str | None:
        """Return why there is nothing to roll back; None where there is something."""
        live = standing.live
        if standing.unfinished is not None or live is None:
            return None
        if self.config.to is not None:
            is_live = self.config.to == live.version == _version(standing.aliases.get("live"))
            return f"version {live.version} is live already" if is_live else None
        settled = settled_by(standing)
        if settled is None:
            return None
        return (
            f"version {live.version} is live since the {settled.line} ({settled.asked}). "
            "'lora-assets rollback --to VERSION' goes to another one that was live"
        )


def _version(version: ModelVersion | None) -> int | None:
    return version.version if version else None


def sentence(planned: Promotion) -> str:
    """Return what a promotion or rollback does, from what to what, in one line."""
    version, replaced = planned.version, planned.replaced
    before = _named(replaced) if replaced else "nothing"
    return f"{planned.action} from {before} to {_named(version)}"


def _named(version: ModelVersion) -> str:
    return (
        f"version {version.version} (data version {version.data_version}, {short(version.digest)})"
    )


def standing_pages(
    registry: Registry, switch: LiveSwitch, planned: Promotion, tags: Mapping[str, str]
) -> dict[str, Any]:
    """Return what `live_deployment`'s page shows after a promotion or rollback."""
    standing = registry.standing()
    aliases = (
        {
            "alias": alias,
            "model version": holder.version,
            "data version": holder.data_version,
            "digest": short(holder.digest),
        }
        for alias, holder in standing.aliases.items()
    )
    changes = (
        {
            "at": entry.at,
            "what": entry.line,
            "by": entry.by,
            "why": entry.why,
            "digest": short(entry.digest),
            "evidence": "; ".join(entry.evidence),
        }
        for entry in reversed(standing.history[-SHOWN_CHANGES:])
    )
    gates = (
        {
            "gate": verdict.gate,
            "verdict": verdict.outcome,
            "numbers": "; ".join(map(str, verdict.checks)),
            "decided at": verdict.decided_at,
        }
        for verdict in registry.verdicts(planned.version).values()
    )
    since = live_since(standing)
    previous = standing.aliases.get("previous")
    waiting = standing.aliases.get("perf-passed")
    waits = _named(waiting) if waiting and waiting != standing.live else "none"
    return {
        "summary": dg.MetadataValue.md(
            f"**{sentence(planned)}**. Waiting for promotion: {waits}. To roll back launch the job "
            "rollback, or type `lora-assets rollback`"
        ),
        "live since": since.asked if since else "not known",
        "gates": table(gates),
        "waiting for promotion": waits,
        "previous": previous.version if previous else "none",
        "replicas": slot_table(switch.replicas(), switch.slot, planned.version),
        "aliases": table(aliases),
        "history": table(changes),
        **pages_of(registry, planned.version),
        **origin(tags),
    }


@dg.op(pool=ROLLBACK, tags=step_pod("promote-adapter"))
def roll_back(
    context: dg.OpExecutionContext,
    config: RollbackConfig,
    registry: Registry,
    fleet: Fleet,
    work_folder: WorkFolder,
) -> None:
    """Give the live traffic back to the version that had it before, or to `to`.

    A second one has nothing to do: what was rolled back is live again only when a person names
    it. Nothing that was cut short is completed.
    """
    wanted = Rollback(registry, config, context.run_id, requested_by(context.run.tags))
    slot = config.slot_name or fleet.live_slot
    switch = LiveSwitch(registry, fleet, work_folder, slot, context.log.info, is_rollback=True)
    done = switch.carry_out(wanted.plan)
    if done is None:
        reason = wanted.nothing_to_do(registry.standing())
        context.log.info(f"nothing to roll back: {reason or 'another one has done it'}")
        return
    warn_of_gaps(context, switch.replicas(), slot)
    context.log.info(f"{sentence(done)}: done")
    context.log_event(
        dg.AssetMaterialization(
            PROMOTION,
            description=sentence(done),
            partition=registry.partition(done.version),
            metadata=standing_pages(registry, switch, done, context.run.tags),
        )
    )


@dg.job(tags={"dagster/priority": "10"})
def rollback() -> None:
    """Give the live traffic back to the version that had it before: press "Launch run".

    It needs no partition and no configuration, and waits for no evaluation and no load test.
    """
    roll_back()
