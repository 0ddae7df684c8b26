"""The MLflow model registry: model versions, aliases and verdicts."""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, get_args
from urllib.parse import quote

from lora_assets.errors import LoraAssetsError
from lora_assets.lifecycle import GATES
from lora_assets.records.base_model import Base
from lora_assets.records.history import Standing
from lora_assets.records.model_version import Alias, ModelVersion
from lora_assets.records.training import Adapter
from lora_assets.records.verdict import GateName, Verdict, gate_note
from lora_assets.resources.adapter_source import data_version_of, fetch_adapter
from lora_assets.resources.mlflow_client import NotInMlflow
from lora_assets.resources.promotion_log import TO_SIGN, PromotionLog
from lora_assets.resources.signature import read_verdicts, verdict_tag
from lora_assets.resources.tracking import ML_VIEW, Tracking
from lora_assets.resources.version_tags import (
    DIGEST,
    base_of,
    is_ours,
    not_ours,
    tags_of,
    version_record,
)
from lora_assets.serving import adapter_files
from lora_assets.serving.vllm_plugin import adapters_folder

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion as MlflowModelVersion

ARTIFACT = "adapter"
_VERSIONS_PER_PAGE = 1_000  # Of 64 KB at most, as MLflow keeps tags: a page is one reply.
_ABOUT = """LoRA adapters that lora-assets trained and judged, a version each; the description of a
version has its gates. `live` answers clients, `previous` did before: `lora-assets history` says
since when, by whom and why."""


class Registry(PromotionLog):
    """One registered model. Every method raises LoraAssetsError when MLflow fails."""

    ui_url: str = ""
    dagster_ui: str = ""

    @property
    def tracking(self) -> Tracking:
        """Return the runs that the versions come from and are judged by."""
        return Tracking(
            tracking_uri=self.tracking_uri,
            ui_url=self.ui_url,
            dagster_ui=self.dagster_ui,
            verdict_key=self.verdict_key,
        )

    def page(self, version: ModelVersion) -> str:
        """Return the URL of a model version's page in MLflow's UI, which is at `ui_url`."""
        ui, model = self.ui_url.rstrip("/"), quote(version.model)
        return f"{ui}/#/models/{model}/versions/{version.version}{ML_VIEW}"

    def numbers(self) -> Sequence[int]:
        """Return the numbers of our versions, the oldest first."""
        return sorted(version.version for version in self._ours())

    def numbers_of_others(self) -> Sequence[int]:
        """Return the numbers of the versions that can be adopted, the oldest first."""
        return sorted(int(v.version) for v in self.all_versions() if not is_ours(v.tags))

    def all_versions(self) -> "Iterator[MlflowModelVersion]":
        """Yield every version of the model, those that are not ours too."""
        token: str | None = None
        while True:
            page = self._client.search_model_versions(
                f"name = '{self.model_name}'", _VERSIONS_PER_PAGE, page_token=token
            )
            yield from page
            if not (token := page.token):
                return

    def is_ours(self, number: int) -> bool:
        """Return whether a version was registered or adopted by lora-assets."""
        return is_ours(self._version(str(number)).tags)

    def current_live(self) -> ModelVersion | None:
        """Return what is live, to compare with or to replace; None before the first promotion.

        The history says it, also where the alias was removed or moved by hand. Raise
        LoraAssetsError where `live` points at a version of others: its bytes aren't known.
        """
        return self.known_standing().live

    def known_standing(self) -> Standing:
        """Return the standing; raise LoraAssetsError where nobody can say what is live.

        So it is where `live` points at a version of others, or where no signed entry counts.
        """
        standing = self.standing()
        if standing.live is None:
            if (number := self.others().get("live")) is not None:
                raise not_ours(self.model_name, number)
            if standing.alias_drift is not None:
                raise LoraAssetsError(f"{self.model_name}: {standing.alias_drift}", TO_SIGN)
        return standing

    def resolve(self, source: str) -> ModelVersion:
        """Return the model version behind `alias:<name>` or `version:<number>`."""
        kind, _, name = source.partition(":")
        if kind == "alias":
            if (holder := self.aliases().get(name)) is not None:
                return holder
            if (number := self.others().get(name)) is not None:
                if name in get_args(Alias):
                    raise not_ours(self.model_name, number)
                raise LoraAssetsError(
                    f"Alias {name!r} of {self.model_name} is not one that lora-assets sets",
                    f"Give one of {', '.join(get_args(Alias))}, or version:{number}.",
                )
            raise LoraAssetsError(
                f"Alias {name!r} of {self.model_name} is not set",
                "See 'lora-assets status' for the aliases there are.",
            )
        if kind != "version" or not re.fullmatch(r"[1-9]\d{0,8}", name):
            raise LoraAssetsError(
                f"{source!r} names no adapter", "Give alias:<name> or version:<number>."
            )
        return version_record(self._version(name))

    def newest(self, data_version: str) -> ModelVersion | None:
        """Return the newest model version of a data version; None where there is none."""
        versions = [v for v in self._ours() if v.data_version == data_version]
        return max(versions, key=lambda v: v.version, default=None)

    def known(self, digest: str, data_version: str, base: str = "") -> ModelVersion | None:
        """Return the model version of these bytes, data version and base; None where none is.

        A base that is empty, or was not kept, makes no difference. One whose files are lost or
        changed does not count: nothing can be deployed from it.
        """
        for known in self._ours():
            same = (known.digest, known.data_version) == (digest, data_version)
            same = same and known.is_of_base(base)
            if same and known.run_id and self.tracking.holds(known.run_id, ARTIFACT, known.digest):
                return known
        return None

    def register(self, adapter: Adapter) -> ModelVersion:
        """Return the adapter's model version, made now unless its data version has these bytes."""
        if (known := self.known(adapter.digest, adapter.data_version, adapter.base)) is not None:
            return known
        if self._model() is None:
            self._client.create_registered_model(self.model_name, description=_ABOUT)
        run = self._client.get_run(adapter.mlflow_run_id)
        made = self._client.create_model_version(
            self.model_name,
            source=f"{run.info.artifact_uri}/{ARTIFACT}",
            run_id=adapter.mlflow_run_id,
            tags=dict(tags_of(adapter)),
        )
        return version_record(made)

    def base(self, version: ModelVersion) -> Base:
        """Return the base model that a version was trained on; empty where nobody kept it."""
        name = f"version {version.version} of {self.model_name}"
        return base_of(name, self._version(str(version.version)).tags)

    def download(self, version: ModelVersion, to: Path) -> Path:
        """Fetch a model version's adapter into the folder `to`, refusing changed bytes."""
        self._fetch(version.version, to)
        adapter_files.verify(to, version.digest)
        return to

    def adopt(
        self, number: int, data_version: str | None, max_rank: int, to: Path
    ) -> tuple[ModelVersion, Sequence[str]]:
        """Give a version of others the tags by which it is ours; return it and what it leaves.

        Its adapter is fetched into the folder `to` for that; other files beside it are left where
        they are, and nothing in MLflow changes but the tags. Refused, with nothing changed, where
        no data version is known or where vLLM can't serve the adapter.
        """
        version = self._version(str(number))
        run = None
        # A run may be gone, with `mlflow gc`, and its files be somewhere else.
        with suppress(NotInMlflow):
            run = self._client.get_run(version.run_id) if version.run_id else None
        trained_on = data_version_of(version, run, data_version)
        left = self._fetch(number, to)
        shape = adapter_files.inspect(to)
        adapter_files.refuse_unservable(to, max_rank)
        tags = {
            "data.version": trained_on,
            "adapter.base_model": shape.base_model,
            # The last one, since it is by this that a version is ours.
            DIGEST: adapters_folder.digest_folder(to),
        }
        for name, value in tags.items():
            self._client.set_model_version_tag(self.model_name, str(number), name, value)
        return version_record(self._version(str(number))), left

    def set_alias(self, alias: Alias, version: ModelVersion) -> None:
        """Point `alias` at `version`, and read it back: aliases are last-writer-wins."""
        self.require_own(version)
        self._client.set_registered_model_alias(self.model_name, alias, str(version.version))
        now = self._client.get_model_version_by_alias(self.model_name, alias).version
        if int(now) != version.version:
            raise LoraAssetsError(
                f"Alias {alias} points at version {now} right after it was set to "
                f"{version.version}",
                "Something else moves aliases at the same time; stop it and run this again.",
            )

    def clear_alias(self, alias: Alias) -> None:
        """Remove `alias`; fine when it is not set."""
        self._client.delete_registered_model_alias(self.model_name, alias)

    def store_verdict(self, version: ModelVersion, verdict: Verdict) -> None:
        """Keep a gate's verdict with its evidence, in the place of that gate's earlier one.

        The description of the version shows all of them.
        """
        self.require_own(version)
        number = str(version.version)
        tag = verdict_tag(self.verdict_key, self.model_name, version.version, verdict)
        self._client.set_model_version_tag(self.model_name, number, *tag)
        self.describe(version)

    def describe(self, version: ModelVersion) -> None:
        """Have the description of a version show its gates, and lead to its report."""
        number, report = str(version.version), self.tracking.report_page(version.run_id)
        verdicts, before = self.verdicts(version).values(), self._version(number).description
        note = gate_note(verdicts, before, self.dagster_ui, report)
        self._client.update_model_version(self.model_name, number, note)

    def conclude(self, version: ModelVersion, verdict: Verdict) -> None:
        """Store a gate's verdict, and point the alias that it earns at the version.

        A gate that could not decide gives no alias.
        """
        self.store_verdict(version, verdict)
        gate = GATES[verdict.gate]
        earned = gate.passed if verdict.passed else None if verdict.undecided else gate.failed
        if earned is not None:
            self.set_alias(earned, version)
        for other in (gate.passed, gate.failed):
            if other not in (earned, None) and self.aliases().get(other) == version:
                self.clear_alias(other)

    def verdicts(self, version: ModelVersion) -> Mapping[GateName, Verdict]:
        """Return the verdicts stored for a model version, by gate.

        With a `verdict_key`, one that is not signed with it has not passed.
        """
        tags = self._version(str(version.version)).tags
        stored = read_verdicts(self.verdict_key, self.model_name, version.version, tags)
        return {verdict.gate: verdict for verdict in stored}

    def _fetch(self, number: int, to: Path) -> Sequence[str]:
        source = self._client.get_model_version_download_uri(self.model_name, str(number))
        return fetch_adapter(source, self.tracking_uri, to)

    def _ours(self) -> Iterator[ModelVersion]:
        """Yield the versions that have our tags; others stand in nobody's way."""
        return (version_record(version) for version in self.all_versions() if is_ours(version.tags))
