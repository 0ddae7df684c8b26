"""Stage 7: the adapter that production traffic gets."""

from collections.abc import Iterator, Sequence
from datetime import timedelta

import dagster as dg

from lora_assets.assets.graph import SERVING, stage_asset
from lora_assets.assets.live_switch import LiveSwitch
from lora_assets.assets.perf_metrics import perf_metrics
from lora_assets.assets.rollback import Rollback, sentence, standing_pages
from lora_assets.assets.served import warn_of_gaps
from lora_assets.assets.staged_deployment import staged_deployment
from lora_assets.assets.verdicts import now
from lora_assets.automation.next_run import CAUSE_TAG
from lora_assets.errors import LoraAssetsError
from lora_assets.gates.policy import reasons_of_policy
from lora_assets.gates.promotion import Case
from lora_assets.gates.rollback import reason_against_rejected
from lora_assets.lifecycle import GATES
from lora_assets.parameters import PromoteOptions, RollbackOptions
from lora_assets.records.history import Standing
from lora_assets.records.model_version import ModelVersion, Promotion
from lora_assets.records.partition import data_version_of
from lora_assets.records.progress import BACKFILL_TAG
from lora_assets.records.run_tags import PASSED_OVER, WHY, requested_by
from lora_assets.resources.fleet import Fleet
from lora_assets.resources.policy import PolicyFile
from lora_assets.resources.registry import Registry
from lora_assets.resources.work_folder import WorkFolder

FRESHNESS = dg.FreshnessPolicy.time_window(
    warn_window=timedelta(days=7), fail_window=timedelta(days=14)
)
"""No promotion in a week is worth a look, in two weeks something is stuck: data comes weekly."""


class PromoteConfig(PromoteOptions, dg.Config):
    """Which adapter takes the live traffic, as parameters of the run."""


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
    policy: PolicyFile,
) -> Iterator[dg.Output[ModelVersion]]:
    """Give the live slot to the adapter behind `source_alias`, if its stored verdicts allow it.

    Once all replicas have the adapter, what is to be done is kept in the registry, and one that is
    killed at any point is taken up by the next one for the same version: the slot on all replicas,
    then `previous`, then `live`, then the intermediate aliases. Each step does nothing where it is
    done already. `previous` is a rollback, of which a second one changes nothing.

    In a run that nobody watches, a version that live has overtaken is passed over, not refused.
    """
    slot = config.slot_name or fleet.live_slot
    is_rollback = config.source_alias == "previous"
    switch = LiveSwitch(registry, fleet, work_folder, slot, context.log.info, is_rollback)
    if is_rollback:
        done = _roll_back(context, config, registry, switch)
    else:
        done = switch.carry_out(lambda standing: _plan(context, config, registry, policy, standing))
    if done is None:
        return
    version = done.version
    warn_of_gaps(context, switch.replicas(), slot)
    context.log.info(f"{sentence(done)}: version {version.version} is live")
    context.add_output_metadata(standing_pages(registry, switch, done, context.run.tags))
    yield dg.Output(version)


def _run_id(context: dg.AssetExecutionContext) -> str:
    return str(context.run.root_run_id or context.run.run_id)


def _roll_back(
    context: dg.AssetExecutionContext, config: PromoteConfig, registry: Registry, switch: LiveSwitch
) -> Promotion | None:
    """Roll back; a run for what is live since a rollback only says so."""
    by = requested_by(context.run.tags)
    wanted = Rollback(registry, RollbackOptions(), _run_id(context), by)

    def plan(standing: Standing) -> Promotion | None:
        planned = wanted.plan(standing)
        if planned is not None:
            _require_partition(context, config.source_alias, planned.version)
        return planned

    done = switch.carry_out(plan)
    if done is not None:
        return done
    standing = registry.standing()
    context.log.warning(f"Nothing to roll back: {wanted.nothing_to_do(standing)}")
    if standing.live is None or standing.live.data_version != data_version_of(
        context.partition_key
    ):
        return None
    return _nothing_changed(standing, standing.live, config, _run_id(context))


def _nothing_changed(
    standing: Standing, version: ModelVersion, config: PromoteConfig, run_id: str
) -> Promotion:
    return Promotion(
        source_alias=config.source_alias,
        version=version,
        replaced=standing.aliases.get("previous"),
        run_id=run_id,
        action="nothing changed",
    )


def _require_partition(
    context: dg.AssetExecutionContext, alias: str, version: ModelVersion
) -> None:
    wanted = data_version_of(context.partition_key)
    if version.data_version != wanted:
        raise LoraAssetsError(
            f"Alias {alias} stands for data version {version.data_version}, not {wanted}",
            f"Promote data version {version.data_version}, or stage {wanted} first.",
        )


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
    return registry.resolve(f"alias:{alias}")


def _plan(
    context: dg.AssetExecutionContext,
    config: PromoteConfig,
    registry: Registry,
    policy: PolicyFile,
    standing: Standing,
) -> Promotion | None:
    """Decide what replaces what, on the verdicts as they are stored now.

    One that was cut short for the same alias and data version is taken up, and a run that lost its
    process in the end finds what it did. Return None where live has overtaken the version and
    nobody watches the run.
    """
    run_id, last, live = _run_id(context), standing.last, standing.live
    cut_short = standing.unfinished
    wanted = (config.source_alias, data_version_of(context.partition_key))
    if last is not None and last.done and last.run_id == run_id and last.version == live:
        return _nothing_changed(standing, last.version, config, run_id)
    if (
        cut_short is not None
        and cut_short.action == "promotion"
        and (cut_short.source_alias, cut_short.version.data_version) == wanted
    ):
        context.log.info(f"taking up the promotion of version {cut_short.version.version}")
        version = cut_short.version
    else:
        version = _source(registry, *wanted)
    if version == live:
        return _nothing_changed(standing, version, config, run_id)
    _require_partition(context, config.source_alias, version)
    verdicts = registry.verdicts(version)
    case = Case(version, live, verdicts, config.source_alias, config.allow_older)
    by_rollback = reason_against_rejected(version, standing.history)
    # A sensor or a backfill launched it, as one of many.
    unattended = {CAUSE_TAG, BACKFILL_TAG} & set(context.run.tags)
    if unattended and (passed_over := (*case.overtaken, *by_rollback)):
        context.log.warning(f"Not promoted: {'; '.join(passed_over)}")
        context.instance.add_run_tags(context.run_id, PASSED_OVER)
        return None
    by_policy = reasons_of_policy(verdicts, config.source_alias, policy.read(), now())
    if reasons := (*case.against, *by_rollback, *by_policy):
        only_older = not (case._replace(allow_older=True).against or by_policy)
        raise LoraAssetsError(
            f"Version {version.version} ({version.digest[:12]}) may not become live: "
            f"{'; '.join(reasons)}",
            _remedy(version, reasons, by_rollback, only_older),
        )
    return Promotion(
        source_alias=config.source_alias,
        version=version,
        replaced=live,
        run_id=run_id,
        by=requested_by(context.run.tags),
        why=context.run.tags.get(WHY, ""),
        evidence=case.evidence,
    )


def _remedy(
    version: ModelVersion, reasons: Sequence[str], by_rollback: Sequence[str], only_older: bool
) -> str:
    if reasons == by_rollback:
        return f"If it is to be live after all: lora-assets rollback --to {version.version}."
    if only_older:
        return "Promote it with --allow-older (in Argo: -p allow-older=true) if it is to go back."
    return "Run the gates that it lacks, then promote again."
