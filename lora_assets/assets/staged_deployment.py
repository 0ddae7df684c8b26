"""Stage 4: the adapter on every replica, smoke-tested."""

import dagster as dg

from lora_assets.assets.gate_pages import gate_pages
from lora_assets.assets.graph import GATE, SERVING, stage_asset
from lora_assets.assets.pages import pages_of, show
from lora_assets.assets.served import ensure_loaded, refuse_live_slot, slot_table, warn_of_gaps
from lora_assets.assets.verdicts import check_result, now, under
from lora_assets.errors import LoraAssetsError
from lora_assets.gates import smoke
from lora_assets.kubernetes.step_pods import step_pod
from lora_assets.parameters import DeployOptions
from lora_assets.records.model_version import ModelVersion
from lora_assets.records.partition import data_version_of
from lora_assets.resources.fleet import Fleet
from lora_assets.resources.policy import PolicyFile
from lora_assets.resources.registry import Registry
from lora_assets.resources.server_metrics import metrics_of
from lora_assets.resources.work_folder import WorkFolder
from lora_assets.serving.on_each import on_each


class DeployConfig(DeployOptions, dg.Config):
    """Which adapter goes where, as parameters of the run."""


class SmokeConfig(smoke.SmokeThresholds, dg.Config):
    """The smoke test's threshold, as a parameter of the run."""


@stage_asset("serving", {"vllm"}, "load-adapter", pool=SERVING)
def staged_deployment(
    context: dg.AssetExecutionContext,
    config: DeployConfig,
    gate_result: ModelVersion,
    registry: Registry,
    fleet: Fleet,
    policy: PolicyFile,
    work_folder: WorkFolder,
) -> ModelVersion:
    """Load the adapter on every replica, under a name of its own and in the candidate slot."""
    policy.read().require("server", fleet.address)
    version = registry.resolve(config.adapter_source) if config.adapter_source else gate_result
    registry.require_own(version)
    data_version = data_version_of(context.partition_key)
    if version.data_version != data_version:
        raise LoraAssetsError(
            f"{config.adapter_source} is of data version {version.data_version}, "
            f"not {data_version}",
            f"Materialise partition {version.data_version}.",
        )
    slot = config.slot_name or fleet.candidate_slot
    refuse_live_slot(fleet, slot)
    replicas = fleet.discover()
    on_each(replicas.members, metrics_of)
    replicas.require_own_slot(slot, version.serving_name)
    ensure_loaded(registry, replicas, version, work_folder)
    replicas.renew_slot(slot, version.serving_name, version.digest)
    warn_of_gaps(context, replicas, slot)
    context.log.info(f"{version.serving_name} is loaded on {len(replicas.members)} replica(s)")
    table = slot_table(replicas, slot, version)
    shown = {"serving name": version.serving_name, "replicas": table}
    facts = (
        f"version {version.version} is loaded on {len(replicas.members)} replica(s)",
        f"clients reach it as {slot}",
    )
    show(context, facts, shown | pages_of(registry, version))
    return version


@dg.asset_check(**GATE, asset=staged_deployment, pool=SERVING, op_tags=step_pod("smoke-test"))
def smoke_test(
    config: SmokeConfig,
    staged_deployment: ModelVersion,
    registry: Registry,
    fleet: Fleet,
    policy: PolicyFile,
) -> dg.AssetCheckResult:
    """Three answers from each replica, all with words, none slow; then alias `staged`."""
    policy.read().require("server", fleet.address)
    answers: dict[str, list[smoke.SmokeAnswer]] = {}
    for replica in fleet.discover().members:
        given = answers.setdefault(replica.name, [])
        for prompt in smoke.PROMPTS:
            answer = replica.complete(staged_deployment.serving_name, prompt, smoke.MAX_TOKENS)
            given.append(smoke.SmokeAnswer(text=answer.text, latency=answer.latency))
    decided = smoke.smoke_test(staged_deployment, answers, config, fleet.address, now())
    verdict = under(policy, decided)
    registry.conclude(staged_deployment, verdict)
    return check_result(verdict, gate_pages(registry, verdict, staged_deployment))
