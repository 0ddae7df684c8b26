"""MLflow runs: opened, found again, judged, read."""

import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any, TypeVar

import dagster as dg
from pydantic import Field, ValidationError

from lora_assets.bounded_calls import MOST_REPLY_BYTES, require_at_most
from lora_assets.errors import LoraAssetsError
from lora_assets.records import Record
from lora_assets.records.run_tags import requested_by
from lora_assets.records.verdict import GateName, Verdict, gate_note, run_link
from lora_assets.resources.fluent_run import fluent_run
from lora_assets.resources.mlflow_client import NotInMlflow, mlflow_client, refuse_elsewhere
from lora_assets.resources.signature import read_verdict, signed
from lora_assets.resources.tracked_run import TrackedRun
from lora_assets.serving.vllm_plugin.adapters_folder import digest_folder

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

Kept = TypeVar("Kept", bound=Record)

KEY_TAG = "lora_assets.key"
DAGSTER_RUN = "dagster.run"
"""The tag of an MLflow run: the Dagster run that made it."""

DATA_SOURCE = "data.source"
"""The tag of a training: the folder of its data."""

_CUT_SHORT = "attributes.status != 'FINISHED' and attributes.status != 'FAILED'"
"""Of a run that was killed with or without a word: MLflow calls the latter RUNNING for ever."""


def in_mlflow(run: dg.DagsterRun) -> Mapping[str, str]:
    """Return what an MLflow run says of the Dagster run that makes it: which, whose, by what."""
    return {
        DAGSTER_RUN: run.run_id,
        "mlflow.user": requested_by(run.tags),
        "mlflow.source.name": "lora-assets",
        "mlflow.source.type": "JOB",
    }


_DESCRIPTION = "mlflow.note.content"
"""MLflow's tag for the description of a run."""

_REPORT = "lora_assets.report"
"""The tag of a training: the artifact that is its report."""

ML_VIEW = "?workflowType=machine_learning"
"""Of a page's URL: without it MLflow 3 shows a run as one of a generative application."""

_INTERRUPTS = (KeyboardInterrupt, dg.DagsterExecutionInterruptedError)
_JUDGED_FOR = "lora_assets.judged_for."


def is_judged_for(model: str, tags: Mapping[str, str]) -> bool:
    """Return whether a run with these tags was judged for `model`.

    Two models may share a training. Where an earlier release left no name, it may be any model's.
    """
    models = [tag.removeprefix(_JUDGED_FOR) for tag in tags if tag.startswith(_JUDGED_FOR)]
    return not models or model in models


class Tracking(dg.ConfigurableResource[Any]):
    """An MLflow tracking server (http://…) or database (sqlite:///…).

    `artifacts` is where the runs of a database keep their files (file:///…); with a server
    it is empty: the server decides. `sampling_s` is the time in seconds between two looks at the
    machine during a training.
    """

    tracking_uri: str = Field(min_length=1)
    artifacts: str = ""
    ui_url: str = ""
    dagster_ui: str = ""
    sampling_s: float = 10
    verdict_key: str = Field("", repr=False)

    def page(self, run_id: str, artifact: str = "") -> str:
        """Return the URL of a run in MLflow's UI, which is at `ui_url`, or of an artifact of it.

        It names the experiment: MLflow 3.17 leads the short form there too, and drops the view.
        A run that `mlflow gc` has removed is in none.
        """
        try:
            return self._page(self._client.get_run(run_id), artifact)
        except NotInMlflow:
            return f"{self.ui_url.rstrip('/')}/#/runs/{run_id}{ML_VIEW}"

    def _page(self, run: "Run", artifact: str = "") -> str:
        file = f"/artifacts/{artifact}" if artifact else ""
        place = f"experiments/{run.info.experiment_id}/runs/{run.info.run_id}{file}"
        return f"{self.ui_url.rstrip('/')}/#/{place}{ML_VIEW}"

    def report_page(self, run_id: str) -> str | None:
        """Return the URL of the report that is kept with a run; None where there is none."""
        try:
            run = self._client.get_run(run_id) if run_id else None
        except NotInMlflow:
            return None
        return self._page(run, run.data.tags[_REPORT]) if run and _REPORT in run.data.tags else None

    def keep_report(self, run_id: str, html: str, name: str) -> str:
        """Keep a report with a run as `name`.html, which MLflow's UI shows; return its URL."""
        self._refuse_elsewhere(run_id)
        self._client.log_text(run_id, html, f"{name}.html")
        self._client.set_tag(run_id, _REPORT, f"{name}.html")
        return self.page(run_id, f"{name}.html")

    @contextmanager
    def run(
        self,
        experiment: str,
        name: str,
        key: str,
        tags: Mapping[str, str],
        training: dg.AssetExecutionContext | None = None,
    ) -> Iterator[TrackedRun]:
        """Open a run, taking up the one that a killed process left under the same `key`.

        The run ends FINISHED with the block, KILLED with an interrupt or FAILED with another
        exception. The step of a `training` has the machine's use logged beside it.
        """
        run_id = self._newest(experiment, _CUT_SHORT, {KEY_TAG: key})
        if run_id is None:
            created = self._client.create_run(self._experiment(experiment), run_name=name)
            run_id = str(created.info.run_id)
        else:
            self._client.update_run(run_id, "RUNNING")
        tracked = self.reopen(run_id)
        every = {KEY_TAG: key, **tags}
        made_by = run_link(self.dagster_ui, tags.get(DAGSTER_RUN))
        tracked.tags({**every, _DESCRIPTION: made_by} if made_by else every)
        try:
            with ExitStack() as carried:
                if training is not None:
                    own = {**every, "mlflow.runName": name}
                    where = (self.tracking_uri, experiment, run_id)
                    carried.enter_context(fluent_run(training, *where, own, self.sampling_s))
                yield tracked
        except BaseException as error:
            interrupted = isinstance(error, _INTERRUPTS)
            # An interrupt stays one where MLflow is away: Dagster tries an interrupted step again.
            with suppress(LoraAssetsError):
                self._client.set_terminated(run_id, "KILLED" if interrupted else "FAILED")
            raise
        self._client.set_terminated(run_id, "FINISHED")

    def finished(self, experiment: str, key: str, tags: Mapping[str, str]) -> str | None:
        """Return the newest run that ended well under `key` with these tags, or None."""
        return self._newest(experiment, "attributes.status = 'FINISHED'", {KEY_TAG: key, **tags})

    def reopen(self, run_id: str) -> TrackedRun:
        """Return a run that exists, to add to."""
        self._refuse_elsewhere(run_id)
        return TrackedRun(run_id, self._client)

    def store_verdict(self, run_id: str, verdict: Verdict, model: str) -> None:
        """Keep a gate's verdict, with its evidence, on the run that it judges for `model`."""
        kept = self._client.get_run(run_id)
        refuse_elsewhere(str(kept.info.artifact_uri))
        run, before = TrackedRun(run_id, self._client), kept.data.tags.get(_DESCRIPTION)
        text = signed(self.verdict_key, f"run {run_id}", verdict.model_dump_json())
        tags = {
            f"verdict.{verdict.gate}": text,
            f"{_JUDGED_FOR}{model}": "true",
            _DESCRIPTION: gate_note([verdict], before, self.dagster_ui),
        }
        run.tags(tags)
        run.metrics({f"{verdict.gate}.passed": float(verdict.passed)})

    def verdict(self, run_id: str, gate: GateName) -> Verdict | None:
        """Return the verdict that a gate left on a run; None where it left none to be read."""
        stored = self._client.get_run(run_id).data.tags.get(f"verdict.{gate}")
        return read_verdict(self.verdict_key, f"run {run_id}", stored) if stored else None

    def newest_trained(self, data_version: str, model: str) -> str | None:
        """Return the newest run that the quality gate judged for these two, or None."""
        runs = self._client.search_runs(
            [each.experiment_id for each in self._client.search_experiments()],
            f"tags.`data.version` = '{data_version}' and metrics.`quality_gate.passed` >= 0",
        )
        judged = (str(run.info.run_id) for run in runs if is_judged_for(model, run.data.tags))
        return next(judged, None)

    def logged(self, run_id: str) -> tuple[Mapping[str, str], Mapping[str, float]]:
        """Return a run's parameters and its newest metrics."""
        data = self._client.get_run(run_id).data
        return data.params, data.metrics

    def system_metrics(self, run_id: str) -> Sequence[Mapping[str, Any]]:
        """Return mean and highest of what MLflow saw of the machine during a training, as rows."""
        prefix, rows = "system/", []
        for name in sorted(self.logged(run_id)[1]):
            if name.startswith(prefix):
                seen = [each.value for each in self._client.get_metric_history(run_id, name)]
                label = name.removeprefix(prefix).replace("_", " ")
                rows.append({"metric": label, "mean": fmean(seen), "highest": max(seen)})
        return rows

    def data_source(self, run_id: str) -> str:
        """Return the folder of the data that a run was trained on; empty where it has none."""
        return str(self._client.get_run(run_id).data.tags.get(DATA_SOURCE, ""))

    def record(self, run_id: str, name: str, shape: type[Kept]) -> Kept:
        """Return the record that a run stored as `name`.json."""
        if (content := self._content(run_id, f"{name}.json")) is None:
            raise LoraAssetsError(
                f"MLflow run {run_id} has no {name}.json",
                "Check that lora-assets made that run, and that its files are still in MLflow.",
            )
        try:
            return shape.model_validate_json(content)
        except ValidationError:
            raise LoraAssetsError(
                f"{name}.json of MLflow run {run_id} is damaged",
                "Delete that run in MLflow, then run this again.",
            ) from None

    def table(self, run_id: str, name: str) -> Sequence[Mapping[str, Any]]:
        """Return the rows of the table that a run stored as `name`.json; none where it has none."""
        if (content := self._content(run_id, f"{name}.json")) is None:
            return []
        stored = json.loads(content)
        return [dict(zip(stored["columns"], row, strict=True)) for row in stored["data"]]

    def holds(self, run_id: str, name: str, digest: str) -> bool:
        """Return whether a run's artifact folder `name` has the bytes of `digest`.

        A run that was deleted holds nothing: `mlflow gc` takes its files away.
        """
        try:
            run = self._client.get_run(run_id)
        except NotInMlflow:
            return False
        if run.info.lifecycle_stage != "active":
            return False
        refuse_elsewhere(str(run.info.artifact_uri))
        if not self._client.list_artifacts(run_id, name):
            return False
        with tempfile.TemporaryDirectory() as to:
            return digest_folder(Path(self._client.download_artifacts(run_id, name, to))) == digest

    def download(self, run_id: str, name: str, to: Path) -> Path:
        """Fetch the artifact folder `name` into `to`; return where it is."""
        self._refuse_elsewhere(run_id)
        return Path(self._client.download_artifacts(run_id, name, str(to)))

    def _content(self, run_id: str, file: str) -> bytes | None:
        """Return the bytes of a run's file, None where it has none; refuse more than a reply's."""
        self._refuse_elsewhere(run_id)
        sizes = {each.path: each.file_size or 0 for each in self._client.list_artifacts(run_id)}
        if file not in sizes:
            return None
        remedy = "Use fewer rows. If none of your runs wrote it, delete that run in MLflow."
        require_at_most(f"{file} of MLflow run {run_id}", sizes[file], MOST_REPLY_BYTES, remedy)
        with tempfile.TemporaryDirectory() as folder:
            return Path(self._client.download_artifacts(run_id, file, folder)).read_bytes()

    @property
    def _client(self) -> "MlflowClient":
        return mlflow_client(self.tracking_uri)

    def _refuse_elsewhere(self, run_id: str) -> None:
        """Refuse a run whose files are at another server: MLflow would send its password there."""
        refuse_elsewhere(str(self._client.get_run(run_id).info.artifact_uri))

    def _newest(self, experiment: str, status: str, tags: Mapping[str, str]) -> str | None:
        """Return the newest run with these tags of which `status` is true, or None."""
        conditions = [f"tags.`{name}` = '{value}'" for name, value in tags.items()]
        runs = self._client.search_runs(
            [self._experiment(experiment)], " and ".join([*conditions, status]), max_results=1
        )
        return str(runs[0].info.run_id) if runs else None

    def _experiment(self, name: str) -> str:
        experiment = self._client.get_experiment_by_name(name)
        if experiment is None:
            folder = f"{self.artifacts}/{name}" if self.artifacts else None
            try:
                return str(self._client.create_experiment(name, folder))
            except LoraAssetsError:  # Another one may have created it in the same moment.
                if (experiment := self._client.get_experiment_by_name(name)) is None:
                    raise
        if experiment.lifecycle_stage != "active":
            raise LoraAssetsError(
                f"MLflow's experiment {name!r} is deleted",
                "Restore it, or choose another with --mlflow-experiment.",
            )
        return str(experiment.experiment_id)
