"""What a promotion leaves in the registry where MLflow loses a reply."""

from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import pytest

from lora_assets.errors import LoraAssetsError
from lora_assets.records.history import ABORTED, LIVE
from lora_assets.resources.registry import Registry
from lora_assets.stack_resources import Resources
from tests.support.promotions import promote, stage

BEGIN, ENTRY, END = 1, 2, 3


class LosingRegistry(Registry):
    """A registry that loses the reply to the `loses`-th record of a promotion."""

    loses: int
    _kept: ClassVar[list[str]] = []

    def _set_tag(self, name: str, text: str) -> None:
        Registry._set_tag(self, name, text)
        self._kept.append(name)
        if len(self._kept) == self.loses:
            raise LoraAssetsError("MLflow failed (no reply)", "Check that it runs.")


@pytest.mark.parametrize(("loses", "outcome"), [(BEGIN, ABORTED), (ENTRY, LIVE), (END, LIVE)])
def test_a_reply_to_a_record_that_is_lost_leaves_no_promotion_under_way(
    resources: Resources, adapter_folders: tuple[Path, ...], monkeypatch: pytest.MonkeyPatch,
    loses: int, outcome: str,
) -> None:  # fmt: skip
    version = stage(resources, adapter_folders[0], "1")
    monkeypatch.setattr(LosingRegistry, "_kept", [])
    losing = LosingRegistry(**dict(resources.registry), loses=loses)
    if outcome == LIVE:
        promote(replace(resources, registry=losing), "1")
    else:
        with pytest.raises(LoraAssetsError, match="no reply"):
            promote(replace(resources, registry=losing), "1")
    assert resources.registry.promotion() is None
    assert [entry.outcome for entry in resources.registry.history()] == [outcome]
    live = resources.registry.aliases().get("live")
    assert live == (version if outcome == LIVE else None)
