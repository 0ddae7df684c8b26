"""The MLflow model registry: model versions, aliases and verdicts."""

import re
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, get_args
from urllib.parse import quote

import dagster as dg
from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion as MlflowModelVersion
from mlflow.exceptions import MlflowException

from lora_assets.errors import LoraAssetsError
from lora_assets.lifecycle import GateName
from lora_assets.records.model_version import Alias, ModelVersion, Promotion
from lora_assets.records.training import Adapter
from lora_assets.records.verdict import Verdict
from lora_assets.resources.mlflow_client import holds, mlflow_errors
from lora_assets.serving import adapter_files

ARTIFACT = "adapter"
_DIGEST = "adapter.digest"
_VERDICT = "verdict."
_PROMOTION = "lora_assets.promotion"


class Registry(dg.ConfigurableResource[Any]):
    """One registered model. Every method raises LoraAssetsError when MLflow fails."""

    tracking_uri: str
    model_name: str
    ui_url: str = ""

    def page(self, version: ModelVersion) -> str:
        """The URL of a model version's page in MLflow's UI, which is at `ui_url`."""
        return (
            f"{self.ui_url.rstrip('/')}/#/models/{quote(version.model)}/versions/{version.version}"
        )

    def aliases(self) -> Mapping[str, ModelVersion]:
        """What each alias points at; an alias that is not set is absent."""
        with self._errors():
            models = self._client.search_registered_models(f"name = '{self.model_name}'")
            versions = {str(v) for m in models for v in m.aliases.values()}
            found = {v: self._get(v) for v in versions}
            set_ = {name: found[str(v)] for m in models for name, v in m.aliases.items()}
        return {alias: set_[alias] for alias in get_args(Alias) if alias in set_}

    def resolve(self, source: str) -> ModelVersion:
        """The model version behind `alias:<name>` or `version:<number>`."""
        kind, _, name = source.partition(":")
        if kind == "alias":
            found = self.aliases().get(name)
            if found is None:
                raise LoraAssetsError(
                    f"Alias {name!r} of {self.model_name} is not set",
                    "See 'lora-assets status' for the aliases there are.",
                )
            return found
        if kind == "version" and re.fullmatch(r"[1-9]\d{0,8}", name):
            return self._numbered(name)
        raise LoraAssetsError(
            f"{source!r} names no adapter", "Give alias:<name> or version:<number>."
        )

    def newest(self, data_version: str) -> ModelVersion | None:
        """The newest model version of a data version; None where there is none."""
        versions = [v for v in self._all() if v.data_version == data_version]
        return max(versions, key=lambda v: v.version, default=None)

    def register(self, adapter: Adapter) -> ModelVersion:
        """The adapter's model version, made now unless its data version has one of these bytes.

        One whose files are lost or changed is none: nothing can be deployed from it.
        """
        for known in self._all():
            if (known.digest, known.data_version) == (adapter.digest, adapter.data_version):
                with self._errors():
                    if holds(self._client, known.run_id, ARTIFACT, known.digest):
                        return known
        with self._errors():
            self._ensure_model()
            run = self._client.get_run(adapter.mlflow_run_id)
            made = self._client.create_model_version(
                self.model_name,
                source=f"{run.info.artifact_uri}/{ARTIFACT}",
                run_id=adapter.mlflow_run_id,
                tags={
                    "data.version": adapter.data_version,
                    "data.digest": adapter.data_digest,
                    _DIGEST: adapter.digest,
                },
            )
        return _record(made)

    def download(self, version: ModelVersion, to: Path) -> Path:
        """Fetch a model version's adapter into the folder `to`, refusing changed bytes."""
        with self._errors():
            folder = Path(self._client.download_artifacts(version.run_id, ARTIFACT, str(to)))
        adapter_files.verify(folder, version.digest)
        return folder

    def set_alias(self, alias: Alias, version: ModelVersion) -> None:
        """Point `alias` at `version`, and read it back: aliases are last-writer-wins."""
        with self._errors():
            self._client.set_registered_model_alias(self.model_name, alias, str(version.version))
            found = self._client.get_model_version_by_alias(self.model_name, alias)
        if int(found.version) != version.version:
            raise LoraAssetsError(
                f"Alias {alias} points at version {found.version} right after it was set to "
                f"{version.version}",
                "Something else moves aliases at the same time; stop it and run this again.",
            )

    def clear_alias(self, alias: Alias) -> None:
        """Remove `alias`; fine when it is not set."""
        with self._errors():
            self._client.delete_registered_model_alias(self.model_name, alias)

    def store_verdict(self, version: ModelVersion, verdict: Verdict) -> None:
        """Keep a gate's verdict with its evidence, replacing that gate's earlier one."""
        with self._errors():
            self._client.set_model_version_tag(
                self.model_name,
                str(version.version),
                f"{_VERDICT}{verdict.gate}",
                verdict.model_dump_json(),
            )

    def promotion(self) -> Promotion | None:
        """The promotion that is under way, or was cut short; None where there is none."""
        stored = self.last_promotion()
        return stored if stored is not None and not stored.done else None

    def last_promotion(self) -> Promotion | None:
        """The promotion that was begun last, done or not; None before the first."""
        with self._errors():
            models = self._client.search_registered_models(f"name = '{self.model_name}'")
        stored = [model.tags[_PROMOTION] for model in models if _PROMOTION in model.tags]
        return Promotion.model_validate_json(stored[0]) if stored else None

    def begin_promotion(self, promotion: Promotion) -> None:
        """Keep what a promotion sets out to do, so that it can be finished after a kill."""
        self._keep(promotion)

    def end_promotion(self, promotion: Promotion) -> None:
        """Keep that all of the promotion is done."""
        self._keep(promotion.model_copy(update={"done": True}))

    def conclude(self, number: int, verdict: Verdict, passed: Alias, failed: Alias) -> None:
        """Store a gate's verdict, and point the alias that it earns at the version."""
        version = self.resolve(f"version:{number}")
        self.store_verdict(version, verdict)
        earned, other = (passed, failed) if verdict.passed else (failed, passed)
        self.set_alias(earned, version)
        if self.aliases().get(other) == version:
            self.clear_alias(other)

    def verdicts(self, version: ModelVersion) -> Mapping[GateName, Verdict]:
        """The verdicts stored for a model version, by gate."""
        with self._errors():
            tags = self._client.get_model_version(self.model_name, str(version.version)).tags
        stored = [
            Verdict.model_validate_json(value)
            for name, value in tags.items()
            if name.startswith(_VERDICT)
        ]
        return {verdict.gate: verdict for verdict in stored}

    @property
    def _client(self) -> MlflowClient:
        return MlflowClient(self.tracking_uri, self.tracking_uri)

    def _errors(self) -> AbstractContextManager[None]:
        return mlflow_errors(self.tracking_uri)

    def _keep(self, promotion: Promotion) -> None:
        with self._errors():
            self._client.set_registered_model_tag(
                self.model_name, _PROMOTION, promotion.model_dump_json()
            )

    def _ensure_model(self) -> None:
        try:
            self._client.create_registered_model(self.model_name)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise

    def _get(self, version: str) -> ModelVersion:
        return _record(self._client.get_model_version(self.model_name, version))

    def _numbered(self, version: str) -> ModelVersion:
        with self._errors():
            try:
                return self._get(version)
            except MlflowException as error:
                if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                    raise
        raise LoraAssetsError(
            f"{self.model_name} has no version {version}",
            "Give one of those that MLflow's page of the model lists.",
        )

    def _all(self) -> list[ModelVersion]:
        """Every version that has our tags: one registered by hand must not stand in their way."""
        with self._errors():
            versions: list[MlflowModelVersion] = []
            token: str | None = None
            while True:
                page = self._client.search_model_versions(
                    f"name = '{self.model_name}'", page_token=token
                )
                versions += page
                if not (token := page.token):
                    return [_record(version) for version in versions if _DIGEST in version.tags]


def _record(found: MlflowModelVersion) -> ModelVersion:
    try:
        return ModelVersion(
            model=found.name,
            version=int(found.version),
            digest=found.tags[_DIGEST],
            data_version=found.tags["data.version"],
            data_digest=found.tags["data.digest"],
            run_id=found.run_id,
        )
    except KeyError as error:
        raise LoraAssetsError(
            f"Version {found.version} of {found.name} has no tag {error}",
            "It was not registered by lora-assets; register its adapter through gate_result.",
        ) from None
