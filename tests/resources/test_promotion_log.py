"""The history and the record of the last promotion, as others may leave them in the registry."""

import json
import logging
from pathlib import Path

import pytest

from lora_assets.errors import LoraAssetsError
from lora_assets.gates.rollback import rollback_target
from lora_assets.records.history import ABORTED, LIVE
from lora_assets.records.model_version import ModelVersion, Promotion
from lora_assets.resources.mlflow_client import mlflow_client
from lora_assets.resources.registry import Registry
from lora_assets.stack_resources import Resources
from tests.support.stack import trained, with_key

LAST = "lora_assets.promotion"
OLDER_RELEASE = {"source_alias", "version", "replaced", "run_id", "done"}


@pytest.fixture
def version(resources: Resources, adapter_folders: tuple[Path, ...]) -> ModelVersion:
    return resources.registry.register(trained(resources, adapter_folders[0], "1"))


def promotion(version: ModelVersion, token: str, number: int = 1) -> Promotion:
    given = {"source_alias": "staged", "version": version, "replaced": None, "run_id": token}
    return Promotion.model_validate({**given, "token": token, "number": number})


def tags(registry: Registry) -> dict[str, str]:
    client = mlflow_client(registry.tracking_uri)
    return dict(client.get_registered_model(registry.model_name).tags)


def set_tag(registry: Registry, name: str, text: str) -> None:
    mlflow_client(registry.tracking_uri).set_registered_model_tag(registry.model_name, name, text)


def test_two_writers_of_one_number_lose_no_entry_and_none_is_changed(
    resources: Resources, version: ModelVersion
) -> None:
    registry = resources.registry
    for token, outcome in (("a", LIVE), ("b", ABORTED), ("a", ABORTED)):
        registry.record(promotion(version, token), outcome)
    kept = {(entry.token, entry.outcome) for entry in registry.history()}
    assert kept == {("a", LIVE), ("b", ABORTED)}


def test_only_the_last_writer_holds_it_until_its_end_which_an_older_release_can_read(
    resources: Resources, version: ModelVersion
) -> None:
    registry = resources.registry
    first, second = promotion(version, "a"), promotion(version, "b")
    registry.begin_promotion(first)
    assert registry.holds(first)
    registry.begin_promotion(second)
    assert (registry.holds(first), registry.holds(second)) == (False, True)
    registry.end_promotion(second)
    assert not registry.holds(second)
    assert set(json.loads(tags(registry)[LAST])) == OLDER_RELEASE


def test_fields_of_a_newer_release_are_ignored_and_garbage_is_named_and_passed_over(
    resources: Resources, version: ModelVersion, caplog: pytest.LogCaptureFixture
) -> None:
    registry = resources.registry
    registry.end_promotion(promotion(version, "a"))
    entry = json.loads(tags(registry)["lora_assets.history.1-a"])
    newer = {**entry, "number": 2, "token": "b", "record_format": 9, "signature": "x"}
    set_tag(registry, "lora_assets.history.2-b", json.dumps(newer))
    set_tag(registry, "lora_assets.history.3-c", "{}")
    unknown = {**promotion(version, "d").model_dump(), "lease": {"until": 1}}
    set_tag(registry, LAST, json.dumps(unknown))
    assert registry.promotion() == promotion(version, "d")
    set_tag(registry, LAST, "no JSON")
    with caplog.at_level(logging.WARNING):
        assert [entry.number for entry in registry.history()] == [1, 2]
        assert registry.last_promotion() is None
    named = [record.getMessage() for record in caplog.records]
    assert any("lora_assets.history.3-c" in line and "passed over" in line for line in named)
    assert any(LAST in line for line in named)
    assert "A later release wrote tag lora_assets.history.2-b: its known fields count" in named
    # Nothing but the record is lost: what is live is in the history.
    live = registry.current_live()
    assert live is not None
    assert live.version == version.version


def test_with_a_key_only_entries_that_are_signed_for_their_place_say_what_is_live(
    resources: Resources, version: ModelVersion, adapter_folders: tuple[Path, ...]
) -> None:
    open_, registry = resources.registry, with_key(resources.registry)
    two = open_.register(trained(resources, adapter_folders[1], "2"))
    # Forged, or from before the key: neither live nor a rollback's target, and no first deployment.
    open_.end_promotion(promotion(two, "a"))
    open_.set_alias("live", two)
    open_.set_alias("previous", version)
    assert (open_.known_standing().live, registry.standing().live) == (two, None)
    assert not {"previous", "live"} & registry.standing().meant.keys()
    with pytest.raises(LoraAssetsError, match=r"live points at version 2, by .* history --sign"):
        registry.known_standing()
    with pytest.raises(LoraAssetsError, match=r"'previous' of .* is not set"):
        rollback_target(registry.standing(), registry.model_name)
    registry.sign_aliases("ann")
    assert registry.known_standing().live == two
    assert rollback_target(registry.standing(), registry.model_name) == 1
    # Another one's promotion of version 1, which was aborted; then it is moved and put back.
    begun = promotion(version, "b", 2)
    registry.begin_promotion(begun)
    record = tags(registry)[LAST]
    registry.end_promotion(begun, ABORTED)
    kept = tags(registry)["lora_assets.history.2-b"]
    set_tag(registry, "lora_assets.history.9-b", kept)
    set_tag(registry, "lora_assets.history.3-c", kept.replace("aborted", "live"))
    set_tag(registry, LAST, record)
    open_.set_alias("live", version)
    assert (registry.promotion(), registry.known_standing().live) == (None, two)
    assert [entry.number for entry in registry.history()] == [1, 2]
    # An entry in the place of which garbage was put before it was written.
    set_tag(registry, "lora_assets.history.3-d", "{}")
    registry.record(promotion(version, "d", 3), LIVE)
    assert registry.known_standing().live == version
