"""Stage 7: the adapter that production traffic gets."""

from collections.abc import Iterator
from datetime import timedelta

import dagster as dg
from pydantic import Field

from lora_assets.assets.graph import stage_asset
from lora_assets.assets.pages import pages_of, show, table
from lora_assets.assets.perf_metrics import perf_metrics
from lora_assets.assets.pools import SERVING
from lora_assets.assets.run_tags import PASSED_OVER
from lora_assets.assets.served import ensure_loaded, slot_table, warn_of_gaps
from lora_assets.assets.staged_deployment import staged_deployment
from lora_assets.automation.next_run import CAUSE_TAG
from lora_assets.errors import LoraAssetsError
from lora_assets.gates import smoke
from lora_assets.gates.promotion import overtaken, reasons_against
from lora_assets.lifecycle import GATES
from lora_assets.records import short
from lora_assets.records.model_version import ModelVersion, Promotion
from lora_assets.records.progress import BACKFILL_TAG
from lora_assets.resources.fleet import LIVE_SLOT, Fleet, slot_field
from lora_assets.resources.registry import Registry
from lora_assets.resources.work_folder import WorkFolder
from lora_assets.serving.replicas import Replicas

INTERMEDIATE = tuple(
    alias for gate in GATES.values() for alias in (gate.passed, gate.failed) if alias is not None
)
"""Aliases that a promotion removes (specification, "What It Does", step 6)."""

FRESHNESS = dg.FreshnessPolicy.time_window(
    warn_window=timedelta(days=7), fail_window=timedelta(days=14)
)
"""No promotion in a week is worth a look, in two weeks something is stuck: data comes weekly."""


class AgeConfig(dg.Config):
    """Whether live may go back to older data."""

    allow_older: bool = Field(
        False, description="Let an older data version replace a newer live one"
    )


class PromoteConfig(AgeConfig):
    """Which adapter takes the live traffic."""

    source_alias: str = Field("staged", description="MLflow alias to promote; previous = rollback")
    slot_name: str | None = slot_field("Live adapter slot on vLLM", LIVE_SLOT)


@stage_asset(
    "serving",
    {"vllm", "mlflow"},
    "promote-adapter",
    pool=SERVING,
    deps=[staged_deployment, perf_metrics],
    output_required=False,
    freshness_policy=FRESHNESS,
)
def live_deployment(
    context: dg.AssetExecutionContext,
    config: PromoteConfig,
    registry: Registry,
    fleet: Fleet,
    work_folder: WorkFolder,
) -> Iterator[dg.Output[ModelVersion]]:
    """Give the live slot to the adapter behind `source_alias`, if its stored verdicts allow it.

    Once all replicas have the adapter, what is to be done is kept in the registry, so that a
    promotion killed at any point is finished by the next one: the slot on all replicas, then
    `previous`, then `live`, then the intermediate aliases. Each step does nothing where it is
    done already. A run that lost its process after the last step finds that in its next attempt;
    a rollback is not rolled back.

    In a run that nobody watches, a version that live has overtaken is passed over, not refused.
    """
    slot = config.slot_name or fleet.live_slot
    replicas = fleet.discover()
    run_id = context.run.root_run_id or context.run.run_id
    last = registry.last_promotion()
    if last is not None and not last.done:
        context.log.info(f"finishing the promotion of version {last.version.version}")
        ensure_loaded(registry, replicas, last.version, work_folder)
        _carry_out(last, slot, registry, replicas)
    if last is not None and _is_same(last, config, context.partition_key, run_id):
        promotion = last
    else:
        planned = _plan(context, config, registry, run_id)
        if planned is None:
            return
        promotion = planned
        # What the replicas can't have is refused before anything is set out to be done.
        ensure_loaded(registry, replicas, promotion.version, work_folder)
        registry.begin_promotion(promotion)
        _carry_out(promotion, slot, registry, replicas)
    version, replaced = promotion.version, promotion.replaced
    warn_of_gaps(context, replicas, slot)
    context.log.info(f"version {version.version} ({version.digest[:12]}) is live")
    aliases = (
        {
            "alias": alias,
            "model version": holder.version,
            "data version": holder.data_version,
            "digest": short(holder.digest),
        }
        for alias, holder in registry.aliases().items()
    )
    shown = {
        "previous": replaced.version if replaced else "none",
        "replicas": slot_table(replicas, slot, version),
        "aliases": table(aliases),
    }
    show(context, shown | pages_of(registry, version))
    yield dg.Output(version)


def _is_same(last: Promotion, config: PromoteConfig, data_version: str, run_id: str) -> bool:
    if last.done:
        return last.run_id == run_id
    return (last.source_alias, last.version.data_version) == (config.source_alias, data_version)


def _source(registry: Registry, alias: str, data_version: str) -> ModelVersion:
    """The version to promote: the alias's, or the data version's own that earned it too.

    An alias of a gate has room for one version, and many pass that gate in a backfill.
    """
    holder = registry.aliases().get(alias)
    if holder is not None and holder.data_version == data_version:
        return holder
    own = registry.newest(data_version)
    gate = next((gate.name for gate in GATES.values() if gate.passed == alias), None)
    if own is not None and gate is not None:
        verdict = registry.verdicts(own).get(gate)
        if verdict is not None and verdict.passed and verdict.digest == own.digest:
            return own
    holder = registry.resolve(f"alias:{alias}")
    raise LoraAssetsError(
        f"Alias {alias} points at data version {holder.data_version}, not {data_version}",
        f"Promote data version {holder.data_version}, or stage {data_version} first.",
    )


def _plan(
    context: dg.AssetExecutionContext, config: PromoteConfig, registry: Registry, run_id: str
) -> Promotion | None:
    """Decide what replaces what, on the aliases and verdicts as they are stored now.

    Return None where live has overtaken the version and nobody watches the run.
    """
    version = _source(registry, config.source_alias, context.partition_key)
    aliases, verdicts = registry.aliases(), registry.verdicts(version)
    live = replaced = registry.current_live()
    if version == live:
        replaced = aliases.get("previous")
    else:
        case = (version, live, verdicts, config.source_alias, config.allow_older)
        # A sensor or a backfill launched it, as one of many.
        unattended = {CAUSE_TAG, BACKFILL_TAG} & set(context.run.tags)
        if unattended and (overtaken_by := overtaken(*case)):
            context.log.warning(f"Not promoted: {'; '.join(overtaken_by)}")
            context.instance.add_run_tags(context.run_id, PASSED_OVER)
            return None
        if reasons := reasons_against(*case):
            is_only_older = not reasons_against(*case[:-1], True)
            raise LoraAssetsError(
                f"Version {version.version} ({version.digest[:12]}) may not become live: "
                f"{'; '.join(reasons)}",
                "Promote it with --allow-older (in Argo: -p allow-older=true) if it is to go back."
                if is_only_older
                else "Run the gates that it lacks, then promote again.",
            )
    return Promotion(
        source_alias=config.source_alias, version=version, replaced=replaced, run_id=run_id
    )


def _carry_out(promotion: Promotion, slot: str, registry: Registry, replicas: Replicas) -> None:
    version = promotion.version
    replicas.renew_slot(slot, version.serving_name, version.digest, smoke.PROMPTS)
    if promotion.replaced is not None:
        registry.set_alias("previous", promotion.replaced)
    registry.set_alias("live", version)
    aliases = registry.aliases()
    for alias in INTERMEDIATE:
        holder = aliases.get(alias)
        # A newer candidate under way keeps its own.
        if holder and not version.is_older_than(holder):
            registry.clear_alias(alias)
    replicas.retire([version.digest for version in registry.aliases().values()])
    registry.end_promotion(promotion)
