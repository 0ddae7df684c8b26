from pathlib import Path

import pytest

from lora_assets.errors import LoraAssetsError
from lora_assets.gates.policy import SPECIFICATION
from lora_assets.resources.policy import PolicyFile
from lora_assets.settings import read_settings
from lora_assets.stack_resources import make_resources


def test_without_a_file_the_specification_holds_and_a_file_is_read_anew(tmp_path: Path) -> None:
    assert PolicyFile().read() == SPECIFICATION
    path = tmp_path / "policy.yaml"
    path.write_text("min-a-rate: 0.8\n")
    file = PolicyFile(path=str(path))
    assert file.read().min_a_rate == 0.8
    path.write_text("min-a-rate: 0.9\n")
    assert file.read().min_a_rate == 0.9


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "The policy .*policy.yaml can't be read: No such file.*LORA_ASSETS_POLICY.$"),
        ("a-rate: 1", ".*policy.yaml: The policy has an unknown key: a-rate. Use the names"),
    ],
)
def test_a_policy_that_can_not_be_read_is_refused_with_the_settings(
    content: str | None, message: str, tmp_path: Path
) -> None:
    path = tmp_path / "policy.yaml"
    if content is not None:
        path.write_text(content)
    settings = {"LORA_ASSETS_HOME": str(tmp_path), "LORA_ASSETS_POLICY": str(path)}
    with pytest.raises(LoraAssetsError, match=message):
        make_resources(read_settings(settings))
