"""Data versions in a bucket and in Dagster's history, without a run."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import dagster as dg

from lora_assets.assets.graph import data_versions
from lora_assets.definitions import make_definitions
from lora_assets.lifecycle import STAGES
from lora_assets.records.dataset import SPLITS
from lora_assets.records.model_version import ModelVersion
from lora_assets.records.verdict import GateName, Verdict
from lora_assets.resources.registry import Registry
from lora_assets.settings import read_settings
from lora_assets.stack_resources import make_resources
from tests.support.records import model_version, passed_verdict


class KnownVersions(Registry):
    """A registry whose versions and aliases are set by the test."""

    by_data_version: ClassVar[dict[str, ModelVersion]] = {}
    compared_with: ClassVar[dict[str, ModelVersion | None]] = {}
    live: ClassVar[list[ModelVersion]] = []

    def aliases(self) -> Mapping[str, ModelVersion]:
        return {"live": self.live[-1]} if self.live else {}

    def newest(self, data_version: str) -> ModelVersion | None:
        return self.by_data_version.get(data_version)

    def verdicts(self, version: ModelVersion) -> Mapping[GateName, Verdict]:
        if version.data_version not in self.compared_with:
            return {}
        against = self.compared_with[version.data_version]
        gates: tuple[GateName, ...] = ("eval_gate", "perf_gate")
        return {gate: passed_verdict(gate, version, against) for gate in gates}

    def know(self, data_version: str, against: ModelVersion | None) -> ModelVersion:
        """A version that passed its gates, compared with `against`."""
        number = len(self.by_data_version) + 1
        version = model_version(number, data_version, f"{number:064x}"[::-1])
        self.by_data_version[data_version] = version
        self.compared_with[data_version] = against
        return version


class Automated:
    """A stack with a Dagster instance of its own, and its sensor's ticks."""

    def __init__(self, home: Path, instance: dg.DagsterInstance, **environment: str) -> None:
        settings = read_settings(
            {"LORA_ASSETS_HOME": str(home), "LORA_ASSETS_PROMOTION": "automatic", **environment}
        )
        self.instance = instance
        self.resources = make_resources(settings)
        self.registry = KnownVersions(tracking_uri="none", model_name="model")
        for known in ("by_data_version", "compared_with", "live"):
            getattr(KnownVersions, known).clear()
        self.definitions = make_definitions(settings)
        self.cursor: str | None = None

    def put(self, *data_versions: str, splits: Sequence[str] = SPLITS) -> None:
        """Put these splits of data versions into the bucket."""
        for data_version in data_versions:
            for split in splits:
                key = f"data/processed/{data_version}/{split}.jsonl"
                self.resources.data_bucket.store.put(key, b"{}\n")

    def tick(self, crashes: bool = False) -> dg.SensorResult:
        """One tick as the daemon runs it; one that crashes has added its partitions only."""
        with dg.build_sensor_context(
            instance=self.instance,
            cursor=self.cursor,
            definitions=self.definitions,
            resources={**vars(self.resources), "registry": self.registry},
        ) as context:
            result = self.definitions.resolve_sensor_def("new_data_versions")(context)
        assert isinstance(result, dg.SensorResult)
        for request in result.dynamic_partitions_requests or ():
            self.instance.add_dynamic_partitions(
                request.partitions_def_name, list(request.partition_keys)
            )
        for event in result.asset_events:
            self.instance.report_runless_asset_event(event)
        if not crashes:
            self.cursor = result.cursor or self.cursor
        return result

    def wanted(self) -> dict[str, list[str]]:
        """The data versions that a tick launches, with their assets."""
        return {
            str(request.partition_key): [key.to_user_string() for key in request.asset_selection]
            for request in self.tick().run_requests or ()
            if request.asset_selection is not None
        }

    def reason(self) -> str:
        """Why a tick launches nothing."""
        result = self.tick()
        assert not result.run_requests
        return str(result.skip_reason)

    def run(
        self,
        data_version: str,
        *assets: str,
        tags: Mapping[str, str] = {},
        status: dg.DagsterRunStatus = dg.DagsterRunStatus.STARTED,
        **others: Any,
    ) -> dg.DagsterRun:
        """A run of a data version, over the whole graph without any assets named."""
        keys = {dg.AssetKey(asset) for asset in assets or STAGES}
        job = self.definitions.resolve_job_def("lifecycle").get_subset(asset_selection=keys)
        tags = {"dagster/partition": data_version, **tags}
        return self.instance.create_run_for_job(job, tags=tags, status=status, **others)

    def launch(self, request: dg.RunRequest) -> dg.DagsterRun:
        """What the daemon makes of a request."""
        tags = {**request.tags, "dagster/run_key": str(request.run_key)}
        starting = dg.DagsterRunStatus.STARTING
        return self.run(str(request.partition_key), tags=tags, status=starting)

    def start(self, data_version: str) -> dg.DagsterRun:
        """The run of a data version that a tick launches."""
        self.put(data_version)
        (request,) = self.tick().run_requests or ()
        return self.launch(request)

    def make(self, data_version: str, *assets: str, failed: str | None = None) -> None:
        """A run that made these assets, its gates passed but for the one that failed."""
        self.instance.add_dynamic_partitions("data_version", [data_version])
        dg.materialize(
            [each for asset in assets for each in _stand_in(asset, failed)],
            instance=self.instance,
            partition_key=data_version,
            raise_on_error=False,
        )


def _stand_in(
    asset: str, failed: str | None
) -> Sequence[dg.AssetsDefinition | dg.AssetChecksDefinition]:
    """An asset that leaves the real one's trace in Dagster's history, and nothing else."""
    names = list(STAGES)
    before = names[max(0, names.index(asset) - 1)]

    @dg.asset(name=asset, deps=[before] if before != asset else [], partitions_def=data_versions)
    def made() -> None: ...

    gate = STAGES[asset].gate
    if gate is None:
        return [made]

    @dg.asset_check(asset=made, name=gate.name, blocking=True, partitions_def=data_versions)
    def decided() -> dg.AssetCheckResult:
        return dg.AssetCheckResult(passed=gate.name != failed)

    return [made, decided]
