"""The sensor finds what a replica no longer serves, and its run brings it back."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import pytest

from lora_assets.assets.served import ensure_loaded
from lora_assets.errors import LoraAssetsError
from lora_assets.records.history import Standing
from lora_assets.records.model_version import Alias, ModelVersion, Promotion
from lora_assets.records.run_tags import WHY
from lora_assets.records.served import CANDIDATE_SLOT, LIVE_SLOT
from lora_assets.resources.fleet import Fleet
from lora_assets.resources.registry import Registry
from lora_assets.sensors.replica_repair import ROOT_RUN, find_drift, repair_replicas
from lora_assets.serving.adapter_files import WEIGHTS
from lora_assets.stack_resources import Resources
from tests.support.commands import register, serve, spoil
from tests.support.repairs import Watch
from tests.support.stack import free_port, trained

SLOTS = {"live": LIVE_SLOT, "staged": CANDIDATE_SLOT}


@pytest.fixture
def watch(resources: Resources, instance: dg.DagsterInstance) -> Watch:
    return Watch(resources, instance)


def deploy(watch: Watch, folder: Path, alias: Alias) -> ModelVersion:
    """An adapter that is served everywhere as its alias says."""
    version = register(watch.resources, folder, alias)
    ensure_loaded(watch.registry, watch.replicas, version, watch.resources.work_folder)
    if alias in SLOTS:
        serve(watch.resources, version, SLOTS[alias])
    return version


@pytest.fixture
def live(watch: Watch, adapter_folders: tuple[Path, ...]) -> ModelVersion:
    return deploy(watch, adapter_folders[0], "live")


def promotion(version: ModelVersion) -> Promotion:
    return Promotion(source_alias="staged", version=version, replaced=None, run_id="run")


def test_before_the_first_promotion_there_is_nothing_to_repair(watch: Watch) -> None:
    assert "Every replica serves" in watch.skipped()
    watch.repair()
    assert watch.registry.aliases() == {}


def unload(watch: Watch, version: ModelVersion) -> None:
    watch.replicas.members[0].unload(version.serving_name)


def empty_the_slot(watch: Watch, version: ModelVersion) -> None:
    watch.replicas.members[0].folder.clear_slot(SLOTS["live"])


def damage(watch: Watch, version: ModelVersion) -> None:
    spoil(Path(watch.fleet.adapters_dir) / version.digest / WEIGHTS)


def remove(watch: Watch, version: ModelVersion) -> None:
    shutil.rmtree(Path(watch.fleet.adapters_dir) / version.digest)


@pytest.mark.parametrize("harm", [unload, empty_the_slot, damage, remove])
def test_what_went_missing_is_named_and_brought_back(
    watch: Watch, live: ModelVersion, harm: Callable[[Watch, ModelVersion], None]
) -> None:
    assert "Every replica serves" in watch.skipped()
    harm(watch, live)
    url = watch.fleet.vllm_url
    found = watch.requested()
    assert f"{url} serves nothing as " in found
    assert f"expected {live.digest[:12]}" in found
    watch.repair()
    assert "Every replica serves" in watch.skipped()
    assert watch.replicas.holds(live.digest)
    assert watch.replicas.serving(SLOTS["live"]) == {url: live.digest}
    watch.replicas.members[0].complete(SLOTS["live"], "a", 1)
    shown = watch.instance.fetch_observations(dg.AssetKey("live_deployment"), limit=1).records
    assert shown[0].partition_key == live.data_version
    (row,) = shown[0].asset_observation.metadata["replicas"].value.records
    assert (row.data["replica"], row.data["digest"]) == (url, live.digest[:12])


def test_an_adapter_from_elsewhere_under_our_name_is_told_and_replaced(
    watch: Watch, live: ModelVersion, adapter_folders: tuple[Path, ...], tmp_path: Path
) -> None:
    (replica,) = watch.replicas.members
    elsewhere = tmp_path / live.digest
    shutil.copytree(adapter_folders[1], elsewhere)
    replica.unload(live.serving_name)
    replica.load(live.serving_name, str(elsewhere))
    found = watch.requested()
    assert f"serves {elsewhere} as {live.serving_name}"[:150] in found
    watch.repair()
    assert "Every replica serves" in watch.skipped()
    assert replica.loaded()[live.serving_name] == f"{watch.fleet.adapters_dir}/{live.digest}"


def test_previous_and_staged_are_brought_back_too(
    watch: Watch, live: ModelVersion, adapter_folders: tuple[Path, ...]
) -> None:
    previous = deploy(watch, adapter_folders[1], "previous")
    staged = deploy(watch, adapter_folders[2], "staged")
    for version in (previous, staged):
        unload(watch, version)
    names = {previous.serving_name, staged.serving_name, SLOTS["staged"]}
    drift = find_drift(watch.registry, watch.fleet, watch.replicas.served())
    assert {each.name for each in drift} == names
    watch.repair()
    loaded = watch.replicas.members[0].loaded()
    assert names <= set(loaded)
    assert Path(loaded[SLOTS["staged"]]).name == staged.digest
    assert Path(loaded[SLOTS["live"]]).name == live.digest


def test_a_promotion_under_way_is_left_to_itself(watch: Watch, live: ModelVersion) -> None:
    empty_the_slot(watch, live)
    watch.registry.begin_promotion(promotion(live))
    assert "promotion is under way" in watch.skipped()
    watch.repair()
    assert watch.replicas.serving(SLOTS["live"]) == {watch.fleet.vllm_url: None}


def test_a_promotion_is_cut_short_once_its_run_and_the_retries_of_it_have_ended(
    watch: Watch, live: ModelVersion
) -> None:
    make, ended = watch.instance.create_run_for_job, dg.DagsterRunStatus.FAILURE
    run = make(repair_replicas, status=ended)
    watch.registry.begin_promotion(promotion(live).model_copy(update={"run_id": run.run_id}))
    retry = make(repair_replicas, status=dg.DagsterRunStatus.STARTED, tags={ROOT_RUN: run.run_id})
    assert "promotion is under way" in watch.skipped()
    watch.instance.report_run_failed(retry)
    assert "was cut short" in watch.requested()
    watch.repair()
    assert watch.registry.promotion() is None


def test_a_repair_under_way_is_not_started_again(watch: Watch, live: ModelVersion) -> None:
    empty_the_slot(watch, live)
    run = watch.instance.create_run_for_job(repair_replicas, status=dg.DagsterRunStatus.STARTED)
    reason = watch.skipped()
    assert "A repair is under way" in reason
    assert SLOTS["live"] in reason
    watch.instance.delete_run(run.run_id)
    watch.requested()


def test_a_repair_that_failed_is_not_tried_again_at_each_tick(
    watch: Watch, live: ModelVersion
) -> None:
    empty_the_slot(watch, live)
    for _ in range(2):
        run = watch.instance.create_run_for_job(repair_replicas, tags={WHY: watch.requested()})
        watch.instance.report_run_failed(run)
    assert "The last repair failed" in watch.skipped()
    unload(watch, live)
    assert live.serving_name in watch.requested()


class Promoted(Registry):
    """A registry in which a promotion was begun and ended while the replicas were looked at."""

    def standing(self) -> Standing:
        found = Registry.standing(self)
        self.end_promotion(promotion(found.aliases["live"]))
        return found


def test_what_a_promotion_changed_in_between_is_no_drift(watch: Watch, live: ModelVersion) -> None:
    empty_the_slot(watch, live)
    known = watch.registry
    registry = Promoted(tracking_uri=known.tracking_uri, model_name=known.model_name)
    resources = replace(watch.resources, registry=registry)
    assert "promotion came in between" in replace(watch, resources=resources).skipped()
    watch.requested()


def test_a_dead_replica_is_named_by_the_tick(watch: Watch, live: ModelVersion) -> None:
    dead = f"http://127.0.0.1:{free_port()}"
    url, adapters = watch.fleet.vllm_url, watch.fleet.adapters_dir
    fleet = Fleet(vllm_url=url, adapters_dir=adapters, replica_urls=[url, dead])
    with pytest.raises(LoraAssetsError, match=f"{dead} is unreachable"):
        replace(watch, resources=replace(watch.resources, fleet=fleet)).tick()


def test_a_live_alias_that_was_removed_or_moved_by_hand_follows_the_history(
    watch: Watch, live: ModelVersion, adapter_folders: tuple[Path, ...]
) -> None:
    registry = watch.registry
    registry.end_promotion(promotion(live).model_copy(update={"number": 1, "token": "a"}))
    assert "Every replica serves" in watch.skipped()
    registry.clear_alias("live")
    assert registry.current_live() == live
    for points_at in ("nothing", "version 2"):
        found = f"alias live points at {points_at}, by the history version 1 is live"
        assert found in watch.requested()
        watch.repair()
        assert registry.aliases()["live"] == live
        assert "Every replica serves" in watch.skipped()
        other = registry.register(trained(watch.resources, adapter_folders[1], "2"))
        registry.set_alias("live", other)


def test_a_promotion_whose_process_is_long_gone_is_ended_and_what_it_left_is_repaired(
    watch: Watch, live: ModelVersion, adapter_folders: tuple[Path, ...]
) -> None:
    other = watch.registry.register(trained(watch.resources, adapter_folders[1], "2"))
    serve(watch.resources, other, LIVE_SLOT)
    now = datetime.now(UTC)
    kept = promotion(other).model_copy(update={"token": "a", "at": now.isoformat()})
    watch.registry.begin_promotion(kept)
    assert "promotion is under way" in watch.skipped()
    long_ago = (now - timedelta(hours=1)).isoformat()
    watch.registry.begin_promotion(kept.model_copy(update={"at": long_ago}))
    assert "promotion to version 2 was cut short" in watch.requested()
    watch.repair()
    assert [entry.outcome for entry in watch.registry.history()] == ["aborted"]
    assert set(watch.replicas.serving(LIVE_SLOT).values()) == {live.digest}
    assert "Every replica serves" in watch.skipped()
