"""What a person asks of MLflow about all that was made for a model."""

from collections.abc import Sequence
from datetime import datetime
from operator import attrgetter

from lora_assets.errors import LoraAssetsError
from lora_assets.records import Record
from lora_assets.records.verdict import Verdict
from lora_assets.resources.mlflow_client import NotInMlflow, mlflow_client
from lora_assets.resources.registry import Registry
from lora_assets.resources.signature import read_verdicts
from lora_assets.resources.tracking import is_judged_for

SHOWN_MODELS = 20
"""Of a registry, to one who names a model that it does not have."""


class StoppedVersion(Record):
    """A data version that a gate stopped; `version` is None where it never became one."""

    data_version: str
    version: int | None
    verdict: Verdict


def require_model(registry: Registry) -> None:
    """Raise LoraAssetsError, with the names that there are, where the model is not there."""
    client = mlflow_client(registry.tracking_uri)
    try:
        client.get_registered_model(registry.model_name)
    except NotInMlflow:
        found = client.search_registered_models(max_results=SHOWN_MODELS)
        names = ", ".join(sorted(model.name for model in found))
        raise LoraAssetsError(
            f"There is no registered model {registry.model_name} in MLflow at "
            f"{registry.tracking_uri}",
            f"Give one of {names}." if names else "Train one first.",
        ) from None


def stopped_versions(registry: Registry, at_most: int) -> Sequence[StoppedVersion]:
    """Return the data versions that a gate stopped, the newest verdict first.

    The quality gate's stand on training runs, the others' on model versions. Of a data version
    that was registered, only the trainings that failed after that count.
    """
    client = mlflow_client(registry.tracking_uri)
    found: list[StoppedVersion] = []
    registered: dict[str, float] = {}
    newest_first = attrgetter("creation_timestamp")
    for version in sorted(registry.all_versions(), key=newest_first, reverse=True):
        data_version = version.tags.get("data.version")
        if data_version is None or data_version in registered:
            continue
        registered[data_version] = version.creation_timestamp / 1000
        number = int(version.version)
        verdicts = read_verdicts(registry.verdict_key, registry.model_name, number, version.tags)
        verdict = next((each for each in verdicts if not each.passed), None)
        if verdict is not None:
            found.append(StoppedVersion(data_version=data_version, version=number, verdict=verdict))
    experiments = [each.experiment_id for each in client.search_experiments()]
    seen: set[str] = set()
    for run in client.search_runs(experiments, "metrics.`quality_gate.passed` = 0"):
        data_version = run.data.tags.get("data.version")
        if data_version is None or data_version in seen:
            continue
        verdict = registry.tracking.verdict(run.info.run_id, "quality_gate")
        if verdict is None or not is_judged_for(registry.model_name, run.data.tags):
            continue
        decided = datetime.fromisoformat(verdict.decided_at).timestamp()
        if decided >= registered.get(data_version, 0):
            seen.add(data_version)
            found.append(StoppedVersion(data_version=data_version, version=None, verdict=verdict))
    return sorted(found, key=lambda each: each.verdict.decided_at, reverse=True)[:at_most]
