"""Where a deployment may put an adapter."""

from pathlib import Path

import dagster as dg
import pytest

from lora_assets.assets.staged_deployment import DeployConfig, staged_deployment
from lora_assets.errors import LoraAssetsError
from lora_assets.records.served import LIVE_SLOT
from lora_assets.settings import EMBEDDED_BASE_NAME
from lora_assets.stack_resources import Resources
from tests.support.stack import trained


@pytest.mark.parametrize(
    ("slot", "cause"),
    [
        (LIVE_SLOT, "only a promotion gives"),
        (f"a-model-v3-{'0' * 12}", "can't be a slot: it is the name of a model version"),
        (EMBEDDED_BASE_NAME, "can't be a slot: it is the name of the base model"),
    ],
)
def test_a_slot_that_no_candidate_may_have_is_refused_before_anything_is_loaded(
    resources: Resources, adapter_folders: tuple[Path, ...], slot: str, cause: str
) -> None:
    version = resources.registry.register(trained(resources, adapter_folders[0], "1"))
    (replica,) = resources.fleet.discover().members
    before = replica.loaded(), replica.folder.slots()
    with pytest.raises(LoraAssetsError, match=cause):
        staged_deployment(
            context=dg.build_asset_context(partition_key="1"),
            config=DeployConfig(slot_name=slot),
            gate_result=version,
            registry=resources.registry,
            fleet=resources.fleet,
            policy=resources.policy,
            work_folder=resources.work_folder,
        )
    assert (replica.loaded(), replica.folder.slots()) == before
