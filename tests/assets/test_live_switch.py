"""What a promotion leaves in the registry where MLflow loses a reply."""

from contextlib import nullcontext
from itertools import count
from pathlib import Path

import pytest

from lora_assets.errors import LoraAssetsError
from lora_assets.records.history import ABORTED, LIVE
from lora_assets.resources.registry import Registry
from lora_assets.stack_resources import Resources
from tests.support.promotions import promote, stage

BEGIN, ENTRY, END = 1, 2, 3


@pytest.mark.parametrize(("loses", "outcome"), [(BEGIN, ABORTED), (ENTRY, LIVE), (END, LIVE)])
def test_a_reply_to_a_record_that_is_lost_leaves_no_promotion_under_way(
    resources: Resources, adapter_folders: tuple[Path, ...], monkeypatch: pytest.MonkeyPatch,
    loses: int, outcome: str,
) -> None:  # fmt: skip
    version = stage(resources, adapter_folders[0], "1")
    set_tag, kept = Registry._set_tag, count(1)

    def lose_the_reply(registry: Registry, name: str, text: str) -> None:
        set_tag(registry, name, text)
        if next(kept) == loses:
            raise LoraAssetsError("MLflow failed (no reply)", "Check that it runs.")

    monkeypatch.setattr(Registry, "_set_tag", lose_the_reply)
    refused = pytest.raises(LoraAssetsError, match="no reply")
    with refused if outcome == ABORTED else nullcontext():
        promote(resources, "1")
    assert resources.registry.promotion() is None
    assert [entry.outcome for entry in resources.registry.history()] == [outcome]
    live = resources.registry.aliases().get("live")
    assert live == (version if outcome == LIVE else None)
