"""How a candidate is compared with live: what `eval_grades` and `perf_metrics` begin with."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import dagster as dg

from lora_assets.assets.served import ensure_candidate_slot, live_served
from lora_assets.assets.verdicts import require_passed
from lora_assets.errors import LoraAssetsError
from lora_assets.parameters import ComparisonOptions
from lora_assets.records import Measurement, short
from lora_assets.records.dataset import Row, TrainingData
from lora_assets.records.grades import Side
from lora_assets.records.model_version import ModelVersion
from lora_assets.records.verdict import GateName, Verdict
from lora_assets.resources.data_bucket import DataBucket
from lora_assets.resources.fleet import Fleet
from lora_assets.resources.registry import Registry
from lora_assets.resources.tracked_run import TrackedRun
from lora_assets.resources.tracking import Tracking, in_mlflow
from lora_assets.resources.work_folder import WorkFolder


@dataclass(frozen=True)
class Comparison:
    """A candidate and live, both loaded; `live` is None on a first deployment."""

    candidate: ModelVersion
    live: ModelVersion | None
    data: TrainingData
    rows: Sequence[Row]
    slots: Mapping[str, str]

    @property
    def sides(self) -> Mapping[Side, ModelVersion]:
        """Return the versions that answer."""
        return {"candidate": self.candidate, **({"live": self.live} if self.live else {})}

    @property
    def identity(self) -> Mapping[str, Any]:
        """Return what was compared, on which data, as the records of both stages name it."""
        return {
            **self.candidate.identity,
            "model_version": self.candidate.version,
            "live_digest": self.live.digest if self.live else None,
            "data_digest": self.data.digest,
        }

    @contextmanager
    def tracked(
        self, tracking: Tracking, experiment: str, kind: str, key: str, purpose: str
    ) -> Iterator[TrackedRun]:
        """Open an MLflow run on the candidate, with its tags and its data set."""
        candidate = self.candidate
        tags = {
            "data.version": candidate.data_version,
            "adapter.digest": candidate.digest,
            **in_mlflow(dg.AssetExecutionContext.get().run),
        }
        with tracking.run(experiment, f"{kind}-v{candidate.version}", key, tags) as run:
            run.dataset(self.data, "eval", purpose)
            yield run


def prepare(
    context: dg.AssetExecutionContext,
    config: ComparisonOptions,
    after: GateName,
    candidate: ModelVersion,
    data: TrainingData,
    data_bucket: DataBucket,
    registry: Registry,
    fleet: Fleet,
    work_folder: WorkFolder,
) -> Comparison:
    """Put both adapters in their slots, for a candidate that passed the gate `after`."""
    registry.require_own(candidate)
    verdict = registry.verdicts(candidate).get(after)
    require_passed(verdict, after, candidate.digest, candidate.data_version)
    rows = data_bucket.read_unchanged(data.data_version, data.digest, data.source, ["eval"])["eval"]
    slot = config.candidate_adapter or fleet.candidate_slot
    live_slot = config.live_adapter or fleet.live_slot
    replicas = fleet.discover()
    if ensure_candidate_slot(registry, replicas, slot, candidate, work_folder):
        context.log.info(f"{candidate.serving_name} is back in {slot}")
    live = live_served(registry, replicas, live_slot, work_folder)
    slots = {"candidate_adapter": slot, "live_adapter": live_slot}
    return Comparison(candidate, live, data, rows, slots)


def conclude(measured: Measurement, verdict: Verdict, registry: Registry) -> ModelVersion:
    """Keep the verdict with the version and in its MLflow run, and set the alias it earns."""
    version = registry.resolve(f"version:{measured.model_version}")
    if version.digest != measured.digest:
        raise LoraAssetsError(
            f"Version {version.version} of {version.model} is adapter {short(version.digest)}, "
            f"but {short(measured.digest)} was measured",
            "Measure that version again.",
        )
    registry.conclude(version, verdict)
    registry.tracking.store_verdict(measured.mlflow_run_id, verdict, registry.model_name)
    return version
