"""The sensor finds what a replica no longer serves, and its run brings it back."""

import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import dagster as dg
import pytest
import torch

from lora_assets.assets.run_tags import WHY
from lora_assets.assets.served import bring
from lora_assets.embedded.server.api import create_app
from lora_assets.embedded.server.options import ServerOptions
from lora_assets.embedded.server.process import start_engine
from lora_assets.errors import LoraAssetsError
from lora_assets.gates import smoke
from lora_assets.records.model_version import Alias, ModelVersion, Promotion
from lora_assets.resources.fleet import CANDIDATE_SLOT, LIVE_SLOT, Fleet
from lora_assets.resources.registry import Registry
from lora_assets.sensors.replica_repair import find_drift, repair_replicas
from lora_assets.serving.adapter_files import WEIGHTS
from lora_assets.stack_resources import Resources
from tests.support.doubles.broken_vllm import listening
from tests.support.repairs import repair, requested, skipped, tick
from tests.support.stack import free_port, trained

SLOTS = {"live": LIVE_SLOT, "staged": CANDIDATE_SLOT}


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as instance:
        yield instance


def deploy(resources: Resources, folder: Path, alias: Alias) -> ModelVersion:
    """An adapter that is served everywhere as its alias says."""
    version = resources.registry.register(trained(resources, folder, "1"))
    bring(resources.registry, resources.fleet, version, resources.work_folder)
    if alias in SLOTS:
        slot, name = SLOTS[alias], version.serving_name
        resources.fleet.renew_slot(slot, name, version.digest, smoke.PROMPTS)
    resources.registry.set_alias(alias, version)
    return version


@pytest.fixture
def live(resources: Resources, adapter_folders: tuple[Path, ...]) -> ModelVersion:
    return deploy(resources, adapter_folders[0], "live")


def joined_by(resources: Resources, url: str) -> Resources:
    """The stack with a second replica."""
    urls = [resources.fleet.vllm_url, url]
    folder = resources.fleet.adapters_dir
    return replace(resources, fleet=Fleet(vllm_url=urls[0], adapters_dir=folder, replica_urls=urls))


def test_before_the_first_promotion_there_is_nothing_to_repair(
    resources: Resources, instance: dg.DagsterInstance
) -> None:
    assert "Every replica serves" in skipped(resources, instance)
    repair(resources, instance)
    assert resources.registry.aliases() == {}


def unload(resources: Resources, version: ModelVersion) -> None:
    resources.fleet.replicas[0].unload(version.serving_name)


def empty_the_slot(resources: Resources, version: ModelVersion) -> None:
    resources.fleet.replicas[0].folder.clear_slot(SLOTS["live"])


def damage(resources: Resources, version: ModelVersion) -> None:
    weights = Path(resources.fleet.adapters_dir) / version.digest / WEIGHTS
    weights.write_bytes(weights.read_bytes()[:-1] + b"!")


def remove(resources: Resources, version: ModelVersion) -> None:
    shutil.rmtree(Path(resources.fleet.adapters_dir) / version.digest)


@pytest.mark.parametrize("harm", [unload, empty_the_slot, damage, remove])
def test_what_went_missing_is_named_and_brought_back(
    resources: Resources,
    instance: dg.DagsterInstance,
    live: ModelVersion,
    harm: Callable[[Resources, ModelVersion], None],
) -> None:
    assert "Every replica serves" in skipped(resources, instance)
    harm(resources, live)
    url = resources.fleet.vllm_url
    found = requested(resources, instance)
    assert f"{url} serves nothing as " in found
    assert f"expected {live.digest[:12]}" in found
    repair(resources, instance)
    assert "Every replica serves" in skipped(resources, instance)
    assert resources.fleet.holds(live.digest)
    assert resources.fleet.serving(SLOTS["live"]) == {url: live.digest}
    resources.fleet.replicas[0].complete(SLOTS["live"], "a", 1)
    shown = instance.fetch_observations(dg.AssetKey("live_deployment"), limit=1).records
    assert shown[0].partition_key == live.data_version
    (row,) = shown[0].asset_observation.metadata["replicas"].value.records
    assert (row.data["replica"], row.data["digest"]) == (url, live.digest[:12])


def test_a_slot_that_stands_for_another_adapter_is_put_back(
    resources: Resources,
    instance: dg.DagsterInstance,
    live: ModelVersion,
    adapter_folders: tuple[Path, ...],
) -> None:
    other = deploy(resources, adapter_folders[1], "candidate")
    slot = SLOTS["live"]
    resources.fleet.renew_slot(slot, other.serving_name, other.digest, smoke.PROMPTS)
    found = requested(resources, instance)
    url = resources.fleet.vllm_url
    assert found == f"{url} serves {other.digest[:12]} as {slot}, expected {live.digest[:12]}"
    repair(resources, instance)
    assert resources.fleet.serving(slot) == {url: live.digest}


def test_previous_and_staged_are_brought_back_too(
    resources: Resources,
    instance: dg.DagsterInstance,
    live: ModelVersion,
    adapter_folders: tuple[Path, ...],
) -> None:
    previous = deploy(resources, adapter_folders[1], "previous")
    staged = deploy(resources, adapter_folders[2], "staged")
    for version in (previous, staged):
        unload(resources, version)
    names = {previous.serving_name, staged.serving_name, SLOTS["staged"]}
    assert {each.name for each in find_drift(resources.registry, resources.fleet)} == names
    repair(resources, instance)
    loaded = resources.fleet.replicas[0].loaded()
    assert names <= set(loaded)
    assert Path(loaded[SLOTS["staged"]]).name == staged.digest
    assert Path(loaded[SLOTS["live"]]).name == live.digest


def test_a_replica_that_joins_empty_gets_what_the_others_serve(
    resources: Resources, instance: dg.DagsterInstance, live: ModelVersion
) -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    options = ServerOptions(adapters_dir=Path(resources.fleet.adapters_dir))
    engine = start_engine(options)
    try:
        with listening(create_app(engine, options)) as joined:
            larger = joined_by(resources, joined)
            urls = [resources.fleet.vllm_url, joined]
            assert requested(larger, instance).startswith(f"{joined} serves nothing as ")
            repair(larger, instance)
            assert larger.fleet.serving(SLOTS["live"]) == dict.fromkeys(urls, live.digest)
            assert "Every replica serves" in skipped(larger, instance)
    finally:
        engine.close()
        torch.set_num_threads(threads)


def test_a_promotion_under_way_is_left_to_itself(
    resources: Resources, instance: dg.DagsterInstance, live: ModelVersion
) -> None:
    empty_the_slot(resources, live)
    resources.registry.begin_promotion(
        Promotion(source_alias="staged", version=live, replaced=None, run_id="run")
    )
    assert "promotion is under way" in skipped(resources, instance)
    repair(resources, instance)
    assert resources.fleet.serving(SLOTS["live"]) == {resources.fleet.vllm_url: None}


def test_a_repair_under_way_is_not_started_again(
    resources: Resources, instance: dg.DagsterInstance, live: ModelVersion
) -> None:
    empty_the_slot(resources, live)
    run = instance.create_run_for_job(repair_replicas, status=dg.DagsterRunStatus.STARTED)
    reason = skipped(resources, instance)
    assert "A repair is under way" in reason
    assert SLOTS["live"] in reason
    instance.delete_run(run.run_id)
    requested(resources, instance)


def test_a_repair_that_failed_is_not_tried_again_at_each_tick(
    resources: Resources, instance: dg.DagsterInstance, live: ModelVersion
) -> None:
    empty_the_slot(resources, live)
    tags = {WHY: requested(resources, instance)}
    run = instance.create_run_for_job(repair_replicas, tags=tags)
    instance.report_run_failed(run)
    assert "The last repair failed" in skipped(resources, instance)
    unload(resources, live)
    assert live.serving_name in requested(resources, instance)


class Promoted(Registry):
    """A registry in which a promotion was begun and ended while the replicas were looked at."""

    def aliases(self) -> Mapping[str, ModelVersion]:
        found = Registry.aliases(self)
        live = found["live"]
        self.end_promotion(
            Promotion(source_alias="staged", version=live, replaced=None, run_id="run")
        )
        return found


def test_what_a_promotion_changed_in_between_is_no_drift(
    resources: Resources, instance: dg.DagsterInstance, live: ModelVersion
) -> None:
    empty_the_slot(resources, live)
    registry = Promoted(
        tracking_uri=resources.registry.tracking_uri, model_name=resources.registry.model_name
    )
    assert "promotion came in between" in skipped(replace(resources, registry=registry), instance)
    requested(resources, instance)


def test_a_dead_replica_is_named_by_the_tick(
    resources: Resources, instance: dg.DagsterInstance, live: ModelVersion
) -> None:
    dead = f"http://127.0.0.1:{free_port()}"
    with pytest.raises(LoraAssetsError, match=f"{dead} is unreachable"):
        tick(joined_by(resources, dead), instance)


def test_an_adapter_damaged_in_the_registry_too_is_not_put_back(
    resources: Resources, instance: dg.DagsterInstance, live: ModelVersion, tmp_path: Path,
    adapter_folders: tuple[Path, ...],
) -> None:  # fmt: skip
    damage(resources, live)
    (stored,) = tmp_path.glob(f"mlflow-artifacts/**/{WEIGHTS}")
    stored.write_bytes(stored.read_bytes()[:-1] + b"!")
    with pytest.raises(LoraAssetsError, match=f"expected {live.digest[:12]}"):
        repair(resources, instance)
    assert not resources.fleet.holds(live.digest)
    resources.fleet.place(adapter_folders[0], live.digest)  # For the tests that follow.
