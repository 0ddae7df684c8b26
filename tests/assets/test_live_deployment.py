from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar
from uuid import uuid4

import pytest

from lora_assets.assets.live_switch import INTERMEDIATE
from lora_assets.assets.served import live_served
from lora_assets.errors import LoraAssetsError
from lora_assets.gates.promotion import required_gates
from lora_assets.records.model_version import ModelVersion
from lora_assets.resources.mlflow_client import mlflow_client
from lora_assets.resources.registry import Registry
from lora_assets.serving.vllm_plugin.adapters_folder import digest_folder
from lora_assets.stack_resources import Resources
from tests.support.policies import policy_file
from tests.support.promotions import aliases, promote, roll_back, run_promotion, stage
from tests.support.records import passed_verdict
from tests.support.scripts_registry import register_by_script

LIVE_SLOT = "aws-rag-qa-live"


class Killed(BaseException):
    """Stands for a kill: nothing catches it."""


class DyingRegistry(Registry):
    """A registry whose process dies at its `dies_at`-th change, before or after it is made."""

    dies_at: int
    after: bool
    _changes: ClassVar[list[str]] = []

    def _change(self, name: str, act: Callable[[], None]) -> None:
        self._changes.append(name)
        dying = len(self._changes) == self.dies_at
        if dying and not self.after:
            raise Killed
        act()
        if dying:
            raise Killed

    def begin_promotion(self, promotion: Any) -> None:
        self._change("begin", lambda: Registry.begin_promotion(self, promotion))

    def set_alias(self, alias: Any, version: ModelVersion) -> None:
        self._change("set", lambda: Registry.set_alias(self, alias, version))

    def clear_alias(self, alias: Any) -> None:
        self._change("clear", lambda: Registry.clear_alias(self, alias))

    def record(self, promotion: Any, *how: str) -> None:
        self._change("record", lambda: Registry.record(self, promotion, *how))

    def end_promotion(self, promotion: Any, *how: str) -> None:
        self._change("end", lambda: Registry.end_promotion(self, promotion, *how))


def test_verdicts_that_fall_short_of_the_policy_let_nothing_go_live(
    resources: Resources, adapter_folders: tuple[Path, ...], tmp_path: Path
) -> None:
    version = stage(resources, adapter_folders[0], "1")
    lax = passed_verdict("eval_gate", version, None, thresholds={"min_a_rate": 0.1})
    resources.registry.store_verdict(version, lax)
    refused = "may not become live: eval_gate was made with min-a-rate 0.1, the policy asks for 0.7"
    with pytest.raises(LoraAssetsError, match=refused):
        promote(resources, "1")
    assert "live" not in aliases(resources)
    allowed = replace(resources, policy=policy_file(tmp_path, {"min-a-rate": 0.1}))
    assert promote(allowed, "1") == version


def test_a_live_version_of_others_is_replaced_and_comes_back_once_it_is_adopted(
    resources: Resources, adapter_folders: tuple[Path, ...], tmp_path: Path
) -> None:
    registry = resources.registry
    register_by_script(registry, adapter_folders[0], "live", tags={"data.version": "1"})
    stage(resources, adapter_folders[1], "2")
    with pytest.raises(LoraAssetsError, match="'lora-assets adopt --model-version 1'"):
        promote(resources, "2")
    assert (registry.others(), registry.last_promotion()) == ({"live": 1}, None)
    theirs, _ = registry.adopt(1, None, resources.fleet.max_lora_rank, tmp_path / "fetched")
    # Staged again, the candidate is compared with it.
    ours = stage(resources, adapter_folders[1], "2")
    assert promote(resources, "2") == ours
    assert aliases(resources) == {"live": 2, "previous": 1}
    assert promote(resources, "1", source_alias="previous") == theirs
    assert aliases(resources) == {"live": 1, "previous": 2}
    (served,) = resources.fleet.discover().serving(LIVE_SLOT).values()
    assert served == theirs.digest


def test_a_candidate_is_no_first_one_where_alias_and_history_were_taken_away(
    resources: Resources, adapter_folders: tuple[Path, ...]
) -> None:
    registry = resources.registry
    stage(resources, adapter_folders[0], "1")
    first = promote(resources, "1")

    def live() -> ModelVersion | None:
        return live_served(registry, resources.fleet.discover(), LIVE_SLOT, resources.work_folder)

    assert live() == first
    client = mlflow_client(registry.tracking_uri)
    for tag in client.get_registered_model(registry.model_name).tags:
        client.delete_registered_model_tag(registry.model_name, tag)
    registry.clear_alias("live")
    assert registry.current_live() is None
    with pytest.raises(LoraAssetsError, match=f"serves {first.serving_name} as {LIVE_SLOT}, but"):
        live()
    registry.set_alias("live", first)
    assert live() == first


def dying(resources: Resources, dies_at: int, after: bool) -> Resources:
    DyingRegistry._changes.clear()
    registry = DyingRegistry(
        tracking_uri=resources.registry.tracking_uri,
        model_name=resources.registry.model_name,
        dies_at=dies_at,
        after=after,
    )
    return replace(resources, registry=registry)


def test_the_page_says_what_is_live_on_which_numbers_and_who_waits(
    resources: Resources, adapter_folders: tuple[Path, ...]
) -> None:
    for number, folder in zip("12", adapter_folders, strict=False):
        stage(resources, folder, number)
    result = run_promotion(resources, "1", tags={"lora_assets/by": "ann"})
    (event,) = result.asset_materializations_for_node("live_deployment")
    page: dict[str, Any] = {name: value.value for name, value in event.metadata.items()}
    assert str(page["live since"]).startswith("by ann, 20")
    assert str(page["waiting for promotion"]).startswith("version 2 (data version 2, ")
    gates = [record.data for record in page["gates"].records]
    assert [each["gate"] for each in gates] == [gate.name for gate in required_gates("staged")]
    assert {each["verdict"] for each in gates} == {"passed"}


@pytest.mark.parametrize(("source", "end"), [("staged", 6), ("previous", 4)])
def test_killed_at_any_change_and_run_again_it_ends_in_one_state(
    resources: Resources, adapter_folders: tuple[Path, ...], source: str, end: int
) -> None:
    data_versions = iter(map(str, range(1, 100)))
    for folder in adapter_folders[:2]:
        promote(resources, stage(resources, folder, next(data_versions)).data_version)
    # The last change is the history's entry, in the middle of the end.
    for dies_at in range(1, end + 2):
        for after in (False, True):
            live = resources.registry.aliases()["live"]
            taken = {holder.digest for holder in resources.registry.aliases().values()}
            free = next(f for f in adapter_folders if digest_folder(f) not in taken)
            target = stage(resources, free, next(data_versions))
            if source == "previous":
                promote(resources, target.data_version)
                live, target = target, live
            partition = target.data_version
            with pytest.raises(Killed):
                promote(dying(resources, dies_at, after), partition, source_alias=source)
            if (dies_at, after) != (end, True):
                promote(resources, partition, source_alias=source)
            found = resources.registry.aliases()
            assert (found["live"], found["previous"]) == (target, live)
            assert not set(INTERMEDIATE) & set(found)
            assert resources.registry.promotion() is None
            assert set(resources.fleet.discover().serving(LIVE_SLOT).values()) == {target.digest}
            assert resources.registry.history()[-1].version == target.version
    numbers = [entry.number for entry in resources.registry.history()]
    assert numbers == sorted(set(numbers))


def test_a_second_rollback_changes_nothing_and_only_a_person_brings_the_version_back(
    resources: Resources, adapter_folders: tuple[Path, ...]
) -> None:
    first, second = (
        promote(resources, stage(resources, folder, number).data_version)
        for number, folder in zip("12", adapter_folders, strict=False)
    )
    run_id = str(uuid4())
    with pytest.raises(Killed):
        promote(dying(resources, 4, after=True), "1", run_id=run_id, source_alias="previous")
    # The next attempt of its run, and another one.
    for again in (run_id, None):
        assert promote(resources, "1", run_id=again, source_alias="previous") == first
        assert aliases(resources) == {"live": 1, "previous": 2}
    resources.registry.set_alias("staged", stage(resources, adapter_folders[1], "2"))
    with pytest.raises(LoraAssetsError, match=r"it was rolled back \(.*rollback --to 2"):
        promote(resources, "2")
    assert not promotes_in_backfill(resources, "2")
    assert roll_back(resources, to=2, reason="it was not its fault")
    assert aliases(resources)["live"] == second.version
    assert [(entry.action, entry.version) for entry in resources.registry.history()] == [
        *[("promotion", 1), ("promotion", 2), ("rollback", 1), ("return", 2)]
    ]
    assert resources.registry.history()[-1].why == "it was not its fault"


def test_an_older_data_version_needs_to_be_asked_for(
    resources: Resources, adapter_folders: tuple[Path, ...]
) -> None:
    stage(resources, adapter_folders[0], "10")
    promote(resources, "10")
    stage(resources, adapter_folders[1], "9")
    with pytest.raises(LoraAssetsError, match=r"older than live 10\. .*-p allow-older=true"):
        promote(resources, "9")
    promote(resources, "9", allow_older=True)
    assert aliases(resources)["live"] == 2


def promotes_in_backfill(resources: Resources, data_version: str) -> bool:
    """Whether one of a backfill's runs promotes, with the configuration that it has: none."""
    ended = run_promotion(resources, data_version, tags={"dagster/backfill": "twenty"})
    assert ended.success
    return bool(ended.asset_materializations_for_node("live_deployment"))


def test_a_backfill_ends_at_the_newest_version_that_earned_it_whatever_the_order(
    resources: Resources, adapter_folders: tuple[Path, ...]
) -> None:
    for number in ("9", "11", "10"):
        stage(resources, adapter_folders[int(number) % 4], number)
    assert promotes_in_backfill(resources, "10")
    assert not promotes_in_backfill(resources, "9")
    assert not promotes_in_backfill(resources, "11")
    live = resources.registry.aliases()["live"]
    assert live.data_version == "10"
    eleven = resources.registry.newest("11")
    assert eleven is not None
    for gate in required_gates("staged"):
        resources.registry.store_verdict(eleven, passed_verdict(gate.name, eleven, live))
    assert promotes_in_backfill(resources, "11")
    assert not promotes_in_backfill(resources, "9")
    assert resources.registry.aliases()["live"] == eleven
