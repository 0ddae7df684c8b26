"""What a promotion leaves in the registry where MLflow takes it badly, or there is no replica."""

from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import pytest

from lora_assets.errors import LoraAssetsError
from lora_assets.records.history import ABORTED, LIVE
from lora_assets.resources.fleet import Fleet
from lora_assets.resources.registry import Registry
from lora_assets.stack_resources import Resources
from tests.support.doubles.kubernetes_api import KubernetesApi, Pod
from tests.support.promotions import promote, roll_back, stage

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


def test_without_a_ready_replica_nothing_is_promoted_or_rolled_back(
    resources: Resources, adapter_folders: tuple[Path, ...], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    for number, folder in zip("12", adapter_folders, strict=False):
        stage(resources, folder, number)
        promote(resources, number)
    stage(resources, adapter_folders[2], "3")
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
