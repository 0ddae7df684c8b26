"""check: find what a pipeline would fail with later, before its training takes a GPU."""

import asyncio
from typing import Any

import click

from lora_assets.assets.served import refuse_live_slot, require_in_slot
from lora_assets.assets.verdicts import now, require_passed
from lora_assets.cli.config_options import chosen, config_options
from lora_assets.cli.newest_data import data_version_option, newest_data_version
from lora_assets.cli.result import json_option, of_verdict, print_json
from lora_assets.cli.stack import OPTIONS, Stack, resource_config, stack_options
from lora_assets.errors import LoraAssetsError
from lora_assets.gates.data import DataThresholds, data_is_sound
from lora_assets.gates.evaluation import EvalThresholds
from lora_assets.gates.performance import PerfThresholds
from lora_assets.gates.quality import QualityThresholds
from lora_assets.gates.smoke import SmokeThresholds
from lora_assets.judging.slices import slice_rows
from lora_assets.parameters import OF_LIVE, AgeOptions, EvalOptions, PerfOptions, TrainingOptions
from lora_assets.records.dataset import SPLITS, older_by_name
from lora_assets.records.model_version import ModelVersion
from lora_assets.records.served import AdapterShape
from lora_assets.records.training import LORA_PROFILES
from lora_assets.remote.webserver import DagsterWebserver
from lora_assets.resources.judge import Judge
from lora_assets.resources.object_store import s3_resource
from lora_assets.resources.registry import Registry
from lora_assets.resources.server_metrics import metrics_of
from lora_assets.serving import http_client
from lora_assets.serving.on_each import on_each
from lora_assets.serving.slot_owner import require_slot_name
from lora_assets.settings import SETTINGS
from lora_assets.stack_resources import Resources
from lora_assets.training import has_torch

_CONFIGS = (
    *(DataThresholds, TrainingOptions, QualityThresholds, SmokeThresholds),
    *(EvalOptions, EvalThresholds, PerfOptions, PerfThresholds, AgeOptions),
)


@click.command()
@data_version_option
@json_option
@stack_options(*OPTIONS)
@config_options(*_CONFIGS)
def check(data_version: str | None, **options: Any) -> None:
    """Check all parameters, and everything that the stages need.

    Ask the data, the registry, every replica, the judge and Prometheus, with the rank of the
    adapter that would be trained. Change nothing.
    """
    stack = Stack(options)
    for config in _CONFIGS:
        chosen(config, options)
    training = TrainingOptions(**chosen(TrainingOptions, options))
    stack.resources.trainer.parameters(training.overrides())
    slots = EvalOptions(**chosen(EvalOptions, options))
    resources = _resources(stack)
    fleet, trainer = resources.fleet, resources.trainer
    parameters = trainer.parameters(training.overrides())
    candidate_slot = slots.candidate_adapter or fleet.candidate_slot
    live_slot = slots.live_adapter or fleet.live_slot
    refuse_live_slot(fleet, candidate_slot)
    data_version = data_version or newest_data_version(resources.data_bucket)
    # On a Dagster elsewhere rows are measured there: the base model need not be here.
    measures = not stack.settings.dagster_url and has_torch()
    bucket = resources.data_bucket
    data, splits = bucket.read(data_version, SPLITS if measures else ("eval",))
    slice_rows(splits["eval"], slots.slice_keys)
    for name in {*slots.other_versions} - {OF_LIVE}:
        bucket.read(name, keep=())
    thresholds = DataThresholds(**chosen(DataThresholds, options))
    sound = data_is_sound(data, splits, thresholds, now())
    verdicts = {"data_is_sound": of_verdict(sound)}
    told = {"stage": "check", "data_version": data_version, "verdicts": verdicts}
    if not sound.passed:
        print_json({**told, "result": "failed"})
    require_passed(sound, "data_is_sound", data.digest, data_version)
    note = "rows are measured where the training takes place"
    if measures:
        length, note = fleet.longest()
        trainer.require_fit(splits, parameters.max_seq_length, length, training.max_left_out)
    live = resources.registry.current_live()
    allow_older = AgeOptions(**chosen(AgeOptions, options)).allow_older
    if live is not None and not allow_older and _is_older(data_version, live, resources.registry):
        raise LoraAssetsError(
            f"Data version {data_version} is older than live {live.data_version}, and would not "
            "be promoted",
            "Run train and deploy alone, or promote it with --allow-older "
            "(in Argo: -p allow-older=true).",
        )
    rank = LORA_PROFILES[parameters.lora_config].rank
    replicas = fleet.discover()
    on_each(replicas.members, metrics_of)
    replicas.preflight(AdapterShape(rank=rank, base_model=trainer.base_model_name, modules={}))
    for replica in replicas.members:
        for slot in (live_slot, candidate_slot):
            require_slot_name(slot, replica.listing().base_names)
    if live is not None:
        require_in_slot(replicas, live_slot, live)
    asyncio.run(_ask(resources.judge))
    resources.server_metrics.begin(fleet)
    if note:
        click.echo(f"note: {note}", err=True)
    print_json({**told, "result": "passed", "notes": [note] if note else []})
    click.echo("check: done", err=True)
    click.echo(f"next: lora-assets train --data-version {data_version}", err=True)


def _is_older(data_version: str, live: ModelVersion, registry: Registry) -> bool:
    """Return whether a promotion would call a data version older than live."""
    trained = registry.newest(data_version)
    if trained is not None:
        return trained.is_older_than(live)
    return bool(older_by_name(data_version, live.data_version))


def _resources(stack: Stack) -> Resources:
    """Return the clients of the pipeline's runs, as a remote Dagster configures them."""
    if not stack.settings.dagster_url:
        return stack.resources
    dagster = DagsterWebserver(stack.settings.dagster_url, stack.settings.dagster_ui_url)
    configured = dagster.configured(dagster.locate("lifecycle"))
    changed = resource_config(stack.given, configured)
    values = {SETTINGS[name].variable: value for name, value in stack.settings}
    s3 = s3_resource(**configured["s3"]) if "s3" in configured else None
    made: dict[str, Any] = {}
    for name, client in vars(stack.resources).items():
        config = changed[name]["config"] if name in changed else configured[name]
        # Dagster shows only the variable of a secret.
        made[name] = type(client)(
            **{
                field: values[value["env"]] if isinstance(value, dict) else value
                for field, value in config.items()
            },
            **({"s3": s3} if hasattr(client, "s3") else {}),
        )
    return Resources(**made).of_model(stack.model)


async def _ask(judge: Judge) -> None:
    async with judge.client() as client:
        model = await judge.model(client)
        names = await http_client.models(client)
    if model not in names:
        raise LoraAssetsError(
            f"The judge at {judge.judge_url} does not serve {model}, but {', '.join(names)}",
            "Correct --judge-model.",
        )
