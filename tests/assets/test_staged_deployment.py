"""Where a deployment may put an adapter."""

from pathlib import Path

import dagster as dg
import pytest

from lora_assets.assets.staged_deployment import DeployConfig, staged_deployment
from lora_assets.errors import LoraAssetsError
from lora_assets.resources.fleet import LIVE_SLOT
from lora_assets.stack_resources import Resources
from tests.support.stack import trained


def test_the_live_slot_is_refused_before_anything_is_loaded(
    resources: Resources, adapter_folders: tuple[Path, ...]
) -> None:
    version = resources.registry.register(trained(resources, adapter_folders[0], "1"))
    before = resources.fleet.discover().members[0].loaded()
    with pytest.raises(LoraAssetsError, match="only a promotion gives"):
        staged_deployment(
            context=dg.build_asset_context(partition_key="1"),
            config=DeployConfig(slot_name=LIVE_SLOT),
            gate_result=version,
            registry=resources.registry,
            fleet=resources.fleet,
            work_folder=resources.work_folder,
        )
    assert resources.fleet.discover().members[0].loaded() == before
