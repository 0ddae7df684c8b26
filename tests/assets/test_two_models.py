"""Two models on one fleet, one registry and one Dagster."""

import json
import re
from collections.abc import Mapping
from pathlib import Path

import dagster as dg
import pytest

from lora_assets.assets.graph import data_versions
from lora_assets.assets.served import ensure_loaded
from lora_assets.errors import LoraAssetsError
from lora_assets.records.model_version import ModelVersion
from lora_assets.records.served import CANDIDATE_SLOT, LIVE_SLOT
from lora_assets.resources.registry import Registry
from lora_assets.sensors.replica_repair import models
from lora_assets.stack_resources import Resources
from tests.support.commands import Run, register
from tests.support.promotions import stage, take_through
from tests.support.repairs import Watch

OTHER = "model-b"
SLOTS = (LIVE_SLOT, CANDIDATE_SLOT, f"{OTHER}-live", f"{OTHER}-candidate")


def serving(resources: Resources) -> list[str | None]:
    return [resources.fleet.discover().serving(s)[resources.fleet.vllm_url] for s in SLOTS]


def test_each_model_goes_live_in_its_own_slots_with_its_own_verdicts_and_records(
    environment: Mapping[str, str], resources: Resources, adapter_folders: tuple[Path, ...],
    tmp_path: Path, run: Run,
) -> None:  # fmt: skip
    other = resources.of_model(OTHER)
    first = stage(resources, adapter_folders[0], "1")
    take_through(resources, "1")
    verdicts = resources.registry.verdicts(first)
    second = stage(other, adapter_folders[1], "1")
    # As materialised in the UI: the partition alone says which model it is about.
    assert take_through(resources, f"1@{OTHER}").baseline is None
    assert serving(resources) == [first.digest] * 2 + [second.digest] * 2
    assert resources.registry.verdicts(first) == verdicts
    assert resources.registry.aliases() == {"live": first}
    assert other.registry.aliases() == {"live": second}
    records = tmp_path / "bucket" / "lora-assets" / "records" / "live_deployment"
    for partition, version in (("1", first), (f"1@{OTHER}", second)):
        kept = (records / f"{partition}.json").read_bytes()
        assert ModelVersion.model_validate_json(kept) == version

    for model, version, slots in ((first.model, first, SLOTS[:2]), (OTHER, second, SLOTS[2:])):
        ended, printed = run(environment, "status", "--json", "--model-name", model)
        found = json.loads(printed)
        assert (ended, found["agrees"], list(found["aliases"])) == (0, True, ["live"])
        (replica,) = found["replicas"]
        assert set(replica["adapters"]) == {version.serving_name, *slots}

    # Promotions retire what is theirs.
    third = stage(resources, adapter_folders[2], "2")
    take_through(resources, "2")
    assert serving(resources) == [third.digest] * 2 + [second.digest] * 2
    resources.fleet.discover().retire([], resources.registry.model_name)
    assert resources.fleet.discover().holds(second.digest)


def test_a_replica_gets_the_adapters_of_every_model_back(
    resources: Resources, adapter_folders: tuple[Path, ...], instance: dg.DagsterInstance
) -> None:
    other = resources.of_model(OTHER)
    version = register(other, adapter_folders[0], "live")
    replicas = other.fleet.discover()
    ensure_loaded(other.registry, replicas, version, other.work_folder)
    instance.add_dynamic_partitions(str(data_versions.name), ["1", f"1@{OTHER}"])
    names = [r.model_name for r, _ in models(instance, resources.registry, resources.fleet)]
    assert names == [resources.registry.model_name, OTHER]
    watch = Watch(resources, instance)
    assert f"nothing as {OTHER}-live" in watch.requested()
    watch.repair()
    assert "Every replica serves" in watch.skipped()
    seen = instance.fetch_observations(dg.AssetKey("live_deployment"), limit=1).records
    assert seen[0].partition_key == f"1@{OTHER}"
    assert serving(resources)[2] == version.digest


@dg.asset(partitions_def=data_versions)
def named(registry: Registry) -> str:
    return registry.model_name


@pytest.mark.parametrize("configured", [None, OTHER])
def test_a_run_is_about_its_partitions_model_and_refused_where_it_is_configured_for_another(
    resources: Resources, instance: dg.DagsterInstance, configured: str | None
) -> None:
    fields = {**dict(resources.registry), "model_name": configured}
    config = {"registry": {"config": fields}} if configured else {}

    def ran(partition: str) -> str:
        instance.add_dynamic_partitions(str(data_versions.name), [partition])
        result = dg.materialize(
            [named],
            instance=instance,
            partition_key=partition,
            resources={**vars(resources), "io_manager": dg.InMemoryIOManager()},
            run_config={"resources": config},
        )
        return str(result.output_for_node("named"))

    assert ran(f"1@{OTHER}") == OTHER
    if configured is None:
        assert ran("1") == resources.registry.model_name
    else:
        cause = f"configured for {OTHER}, but partition 1 is of .*Run partition 1@{OTHER} "
        with pytest.raises(dg.DagsterResourceFunctionError) as refused:
            ran("1")
        assert re.search(cause, str(refused.value.__cause__))


def test_a_slot_and_a_registry_refuse_the_adapter_of_another_model(
    resources: Resources, adapter_folders: tuple[Path, ...], run: Run
) -> None:
    own = register(resources, adapter_folders[0], "live")
    other = resources.of_model(OTHER)
    foreign = register(other, adapter_folders[1], "live")
    replicas = resources.fleet.discover()
    for version in (own, foreign):
        ensure_loaded(
            resources.of_model(version.model).registry, replicas, version, other.work_folder
        )
    replicas.renew_slot(CANDIDATE_SLOT, own.serving_name, own.digest)
    with pytest.raises(LoraAssetsError, match=f"{CANDIDATE_SLOT} is a slot of {own.model}, not of"):
        replicas.renew_slot(CANDIDATE_SLOT, foreign.serving_name, foreign.digest)
    with pytest.raises(LoraAssetsError, match=f"{LIVE_SLOT} is a slot of another model, not of"):
        other.fleet.discover().require_own_slot(LIVE_SLOT, foreign.serving_name)
    assert serving(resources)[1] == own.digest
    with pytest.raises(LoraAssetsError, match=f"Version 1 is of {OTHER}, not of {own.model}"):
        resources.registry.set_alias("staged", foreign)
