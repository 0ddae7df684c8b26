"""The resources that the settings make."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, get_type_hints

import dagster as dg
from pydantic import ValidationError

from lora_assets.errors import LoraAssetsError, validation_line
from lora_assets.guarded_records import GuardedRecords
from lora_assets.resources.data_bucket import DataBucket
from lora_assets.resources.fleet import Fleet
from lora_assets.resources.judge import Judge
from lora_assets.resources.object_store import s3_resource
from lora_assets.resources.policy import PolicyFile
from lora_assets.resources.registry import Registry
from lora_assets.resources.server_metrics import ServerMetrics
from lora_assets.resources.tracking import Tracking
from lora_assets.resources.trainer import Trainer
from lora_assets.resources.webhook import Webhook
from lora_assets.resources.work_folder import WorkFolder
from lora_assets.settings import SETTINGS, Settings, fields_given


def secrets_by_name(settings: Settings) -> Settings:
    """Return the settings with each secret as the name of its variable.

    Dagster's UI shows how resources are configured.
    """
    secrets = [name for name, setting in SETTINGS.items() if setting.secret]
    variables = {n: dg.EnvVar(SETTINGS[n].variable) for n in secrets if getattr(settings, n)}
    return settings.model_copy(update=variables)


@dataclass(frozen=True)
class Resources:
    """The clients of a stack, under the names that assets ask for them by."""

    data_bucket: DataBucket
    io_manager: GuardedRecords
    tracking: Tracking
    registry: Registry
    trainer: Trainer
    fleet: Fleet
    judge: Judge
    server_metrics: ServerMetrics
    work_folder: WorkFolder
    policy: PolicyFile
    webhook: Webhook

    def of_model(self, model: str) -> "Resources":
        """Return the clients for `model`, which may be another than the deployment's own."""
        if model == self.registry.model_name:
            return self
        registry, fleet = self.registry.of_model(model), self.fleet.of_model(model)
        return replace(self, registry=registry, fleet=fleet)


def make_resources(settings: Settings) -> Resources:
    """Return the clients that these settings describe."""
    fields = fields_given(settings)
    links = {"ui_url": settings.mlflow_ui, "dagster_ui": settings.dagster_ui}
    fields["tracking"].update(links)
    fields["registry"].update(links)
    # The embedded training takes seconds.
    fields["tracking"]["sampling_s"] = 2 if settings.embedded else 10
    fields["trainer"]["embedded"] = fields["fleet"]["shares_machine"] = settings.embedded
    fields["work_folder"]["path"] = str(settings.home / "work")
    fields["policy"]["automatic_promotion"] = settings.promotion == "automatic"
    if any(uri.startswith("s3://") for uri in (settings.s3_data_bucket, settings.records_bucket)):
        given = {name: value or None for name, value in fields["s3"].items()}
        fields["data_bucket"]["s3"] = fields["io_manager"]["s3"] = s3_resource(**given)
    kinds = get_type_hints(Resources)
    made = {name: _made(name, kind, fields[name]) for name, kind in kinds.items()}
    # What it can't be is known before anything is measured.
    made["policy"].read()
    return Resources(**made)


def _made(name: str, kind: Any, fields: Mapping[str, Any]) -> Any:
    try:
        return kind(**fields)
    except ValidationError as error:
        given = f"{name}.{error.errors()[0]['loc'][0]}"
        setting = next(each for each in SETTINGS.values() if given in each.gives)
        raise LoraAssetsError(
            f"{setting.variable} is not possible ({validation_line(error)})",
            f"Correct {setting.variable}, or the option that overrides it.",
        ) from None
