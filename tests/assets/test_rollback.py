"""What meets a promotion or a rollback: another one, a replica that fails, a pool that is taken."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster import DagsterInstance

from lora_assets.assets.graph import SERVING
from lora_assets.errors import LoraAssetsError
from lora_assets.local.instance import open_instance
from lora_assets.records.model_version import ModelVersion
from lora_assets.records.served import LIVE_SLOT
from lora_assets.resources.fleet import Fleet
from lora_assets.stack_resources import Resources
from tests.support.doubles.kubernetes_api import KubernetesApi, Pod
from tests.support.interruptions import LIVE_MOVED, interrupt
from tests.support.promotions import aliases, launch_rollback, promote, roll_back, stage

Meet = Callable[[str, Callable[[], object]], None]


@pytest.fixture
def meet(monkeypatch: pytest.MonkeyPatch) -> Meet:
    """Have something happen once, at a point of the promotion or rollback that comes next."""
    return partial(interrupt, patch=monkeypatch.setattr)


@pytest.fixture
def third(resources: Resources, adapter_folders: tuple[Path, ...]) -> ModelVersion:
    """Versions 1 and 2 were promoted, 3 may be."""
    for number, folder in zip("12", adapter_folders, strict=False):
        stage(resources, folder, number)
        promote(resources, number)
    return stage(resources, adapter_folders[2], "3")


def told(resources: Resources) -> list[tuple[str, int, str]]:
    """What the history says after the two promotions."""
    return [(e.action, e.version, e.outcome) for e in resources.registry.history()[2:]]


def serves(resources: Resources, version: int) -> bool:
    digest = resources.registry.resolve(f"version:{version}").digest
    return set(resources.fleet.discover().serving(LIVE_SLOT).values()) == {digest}


def test_a_promotion_that_a_rollback_overtakes_stops_and_touches_nothing_more(
    resources: Resources, third: ModelVersion, meet: Meet
) -> None:
    meet("in the slot", lambda: roll_back(resources))
    with pytest.raises(LoraAssetsError, match="to version 3 was overtaken by a later"):
        promote(resources, "3")
    assert told(resources) == [("promotion", 3, "aborted"), ("rollback", 2, "live")]
    found = aliases(resources)
    assert (found["live"], found["previous"]) == (2, 1)
    assert serves(resources, 2)
    assert resources.registry.promotion() is None


def test_a_promotion_that_a_rollback_made_void_before_its_record_comes_after_it_in_the_history(
    resources: Resources, third: ModelVersion, meet: Meet
) -> None:
    meet("loaded", lambda: roll_back(resources))
    with pytest.raises(LoraAssetsError, match=r"^Version 3 .* may not become live: .* live is now"):
        promote(resources, "3")
    assert told(resources) == [("rollback", 1, "live"), ("promotion", 3, "aborted")]
    assert [entry.number for entry in resources.registry.history()] == [1, 2, 3, 4]
    assert serves(resources, 1)


def test_of_two_with_one_number_the_one_that_was_overtaken_gets_the_next(
    resources: Resources, third: ModelVersion, meet: Meet
) -> None:
    registry = resources.registry

    def another() -> None:
        mine = registry.last_promotion()
        assert mine is not None
        other = mine.model_copy(update={"token": "other", "version": registry.aliases()["live"]})
        registry.begin_promotion(other)
        registry.end_promotion(other)

    meet("in the slot", another)
    with pytest.raises(LoraAssetsError, match="to version 3 was overtaken by a later"):
        promote(resources, "3")
    assert told(resources) == [("promotion", 2, "live"), ("promotion", 3, "aborted")]
    assert [entry.number for entry in registry.history()] == [1, 2, 3, 4]


def test_a_promotion_that_was_live_when_a_rollback_came_ends_well(
    resources: Resources, third: ModelVersion, meet: Meet
) -> None:
    meet(LIVE_MOVED, lambda: roll_back(resources))
    assert promote(resources, "3") == third
    assert told(resources) == [("promotion", 3, "live"), ("rollback", 2, "live")]
    found = aliases(resources)
    assert (found["live"], found["previous"]) == (2, 3)
    assert serves(resources, 2)
    last = resources.registry.last_promotion()
    assert last is not None
    assert last.version.version == 2


@pytest.mark.parametrize(
    ("where", "outcomes"), [("in the slot", ["aborted", "live"]), (LIVE_MOVED, ["live"])]
)
def test_two_promotions_of_one_version_make_it_live_once(
    resources: Resources, third: ModelVersion, meet: Meet, where: str, outcomes: list[str]
) -> None:
    meet(where, lambda: promote(resources, "3"))
    assert promote(resources, "3") == third
    assert told(resources) == [("promotion", 3, outcome) for outcome in outcomes]
    assert resources.registry.promotion() is None
    assert serves(resources, 3)


def test_a_rollback_that_a_promotion_overtakes_leaves_the_promotion(
    resources: Resources, third: ModelVersion, meet: Meet
) -> None:
    meet("in the slot", lambda: promote(resources, "3"))
    with pytest.raises(LoraAssetsError, match="to version 1 was overtaken by a later"):
        roll_back(resources)
    assert told(resources) == [("rollback", 1, "aborted"), ("promotion", 3, "live")]
    assert aliases(resources) == {"live": 3, "previous": 2}
    assert serves(resources, 3)


def test_a_promotion_that_was_put_back_is_aborted_and_stops_nothing_after_it(
    resources: Resources, third: ModelVersion, meet: Meet, adapter_folders: tuple[Path, ...]
) -> None:
    def fails() -> None:
        resources.fleet.discover().renew_slot(LIVE_SLOT, *second)
        raise LoraAssetsError("replica 1 answers with other weights", "Restart it.")

    live = resources.registry.aliases()["live"]
    second = (live.serving_name, live.digest)
    meet("in the slot", fails)
    with pytest.raises(LoraAssetsError, match="other weights"):
        promote(resources, "3")
    assert told(resources) == [("promotion", 3, "aborted")]
    assert resources.registry.promotion() is None
    stage(resources, adapter_folders[3], "4")
    promote(resources, "4")
    roll_back(resources)
    roll_back(resources)
    assert aliases(resources)["live"] == 2
    assert serves(resources, 2)


def test_without_a_ready_replica_nothing_is_promoted_or_rolled_back(
    resources: Resources, third: ModelVersion, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = resources.registry
    before = registry.standing(), registry.last_promotion()
    assert [entry.version for entry in before[0].history] == [1, 2]
    api = KubernetesApi(pods=[Pod("vllm-0", tmp_path, ip="10.0.0.1", ready=False)])
    fleet = Fleet(vllm_url="http://all", adapters_dir="/a", pod_selector="models/app=vllm")
    empty = replace(resources, fleet=fleet)
    with api.serving(tmp_path) as kubeconfig:
        monkeypatch.setenv("KUBECONFIG", str(kubeconfig))
        for told in (r"^0 of at least 1 .*vllm-0 is not ready", "^There is no running pod"):
            for refused in (lambda: promote(empty, "3"), lambda: roll_back(empty)):
                with pytest.raises(LoraAssetsError, match=told) as caught:
                    refused()
                assert "\n" not in str(caught.value)
                assert (registry.standing(), registry.last_promotion()) == before
            api.pods.clear()


def test_a_rollback_waits_for_no_evaluation(
    resources: Resources, third: ModelVersion, tmp_path: Path
) -> None:
    with open_instance(tmp_path / "dagster", managed=True) as instance:
        take(instance, SERVING)
        assert roll_back(resources, instance).success
    assert aliases(resources)["live"] == 1


def take(instance: DagsterInstance, pool: str) -> None:
    """Take a pool's only slot, as the step of a long evaluation does."""
    storage = instance.event_log_storage
    storage.initialize_concurrency_limit_to_default(pool)
    assert storage.claim_concurrency_slot(pool, "evaluation", "eval_grades").is_claimed


def test_a_runs_configuration_reads_no_variable_of_its_pod(
    resources: Resources, adapter_folders: tuple[Path, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DAGSTER_PG_PASSWORD", "its-secret")
    stage(resources, adapter_folders[0], "1")
    named = {"env": "DAGSTER_PG_PASSWORD"}
    own: dict[str, Any] = {"vllm_url": "http://127.0.0.1:1", "adapters_dir": "x"}
    own["replica_urls"] = [named]
    fleet = {"resources": {"fleet": {"config": own}}}
    for run in (
        lambda: roll_back(resources, reason=named),
        lambda: promote(resources, "1", slot_name=named),
        lambda: launch_rollback(resources, fleet),
    ):
        with pytest.raises(dg.DagsterResourceFunctionError) as refused:
            run()
        assert "reads the environment variable DAGSTER_PG_PASSWORD" in str(refused.value.__cause__)
    assert resources.registry.history() == ()
    # The fleet's own secret stays what it is, where a command changes another field of the fleet.
    monkeypatch.setenv("VLLM_API_KEY", "key")
    monkeypatch.setenv("VLLM_URL", "http://vllm:8000")
    own |= {"replica_urls": [], "api_key": {"env": "VLLM_API_KEY"}}
    for elsewhere in ({}, {"vllm_url": "http://vllm:8000", "replica_urls": ["http://127.0.0.1:1"]}):
        fleet["resources"]["fleet"]["config"] = own | elsewhere
        with pytest.raises(dg.DagsterResourceFunctionError) as refused:
            launch_rollback(resources, fleet)
        told = "names another server than the one that VLLM_API_KEY is for. Give that server's own"
        assert told in str(refused.value.__cause__)
    fleet["resources"]["fleet"]["config"] = own | {"vllm_url": "http://vllm:8000/"}
    with pytest.raises(LoraAssetsError, match="previous"):
        launch_rollback(resources, fleet)
