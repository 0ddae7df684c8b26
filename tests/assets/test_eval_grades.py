"""Whose grades count."""

from dataclasses import replace
from pathlib import Path

import pytest

from lora_assets.embedded.judge_app import LEXICAL_JUDGE
from lora_assets.errors import LoraAssetsError
from lora_assets.resources.judge import Judge
from lora_assets.resources.policy import PolicyFile
from lora_assets.stack_resources import Resources
from tests.support.promotions import stage, take_through
from tests.support.stack import free_port


def test_a_judge_that_the_policy_does_not_list_is_not_asked(
    resources: Resources, adapter_folders: tuple[Path, ...], tmp_path: Path
) -> None:
    stage(resources, adapter_folders[0], "1")
    listed, other = resources.judge.judge_url, f"http://127.0.0.1:{free_port()}"
    path = tmp_path / "policy.yaml"
    path.write_text(f"judges: {{'{listed}/': {LEXICAL_JUDGE}}}")
    demanding = replace(resources, policy=PolicyFile(path=str(path)))
    refused = f"^the judge {other} is none of those whose grades count .{LEXICAL_JUDGE} at {listed}"
    with pytest.raises(LoraAssetsError, match=refused):
        take_through(replace(demanding, judge=Judge(judge_url=f"{other}/")), "1")
    renamed = Judge(judge_url=listed, judge_model="llama")
    with pytest.raises(LoraAssetsError, match=f"^the judge llama at {listed} is none of those"):
        take_through(replace(demanding, judge=renamed), "1")
    # The one that is listed grades; the stored verdict of the stage, which names none, is refused.
    with pytest.raises(LoraAssetsError, match="eval_gate: the judge that it does not name"):
        take_through(demanding, "1")
