"""Whose grades count, and whose answers."""

import inspect
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lora_assets.assets.eval_grades import eval_gate, eval_grades
from lora_assets.assets.perf_metrics import perf_gate, perf_metrics
from lora_assets.assets.staged_deployment import smoke_test, staged_deployment
from lora_assets.embedded.judge_app import LEXICAL_JUDGE
from lora_assets.errors import LoraAssetsError
from lora_assets.records.grades import Scores
from lora_assets.resources.fleet import Fleet
from lora_assets.resources.judge import Judge
from lora_assets.stack_resources import Resources
from tests.support import records
from tests.support.policies import policy_file
from tests.support.promotions import stage, take_through
from tests.support.stack import free_port

ON_THE_FLEET = (staged_deployment, smoke_test, eval_grades, eval_gate, perf_metrics, perf_gate)
GRADING = (eval_grades, eval_gate)


def test_a_judge_that_the_policy_does_not_list_is_not_asked(
    resources: Resources, adapter_folders: tuple[Path, ...], tmp_path: Path
) -> None:
    stage(resources, adapter_folders[0], "1")
    listed, other = resources.judge.judge_url, f"http://127.0.0.1:{free_port()}"
    both = {"servers": [f"{resources.fleet.vllm_url}/"], "judges": {f"{listed}/": LEXICAL_JUDGE}}
    demanding = replace(resources, policy=policy_file(tmp_path, both))
    refused = f"^the judge {other} is none of those whose grades count .{LEXICAL_JUDGE} at {listed}"
    with pytest.raises(LoraAssetsError, match=refused):
        take_through(replace(demanding, judge=Judge(judge_url=f"{other}/")), "1")
    renamed = Judge(judge_url=listed, judge_model="llama")
    with pytest.raises(LoraAssetsError, match=f"^the judge llama at {listed} is none of those"):
        take_through(replace(demanding, judge=renamed), "1")
    # The one that is listed grades; the stored verdict of the stage, which names none, is refused.
    with pytest.raises(LoraAssetsError, match="eval_gate: the judge that it does not name"):
        take_through(demanding, "1")
    # What was kept without a list may be anyone's, and is apart from this.
    assert take_through(resources, "1").vllm_url == resources.fleet.address
    for kept in ("answers-candidate.jsonl", "grades.jsonl"):
        assert len([*Path(resources.work_folder.path).glob(f"evaluation/*/{kept}")]) == 2


@pytest.mark.parametrize(("kind", "steps"), [("server", ON_THE_FLEET), ("judge", GRADING)])
def test_a_step_refuses_at_its_start_what_comes_from_elsewhere_than_the_policy_lists(
    kind: str, steps: tuple[Any, ...], tmp_path: Path
) -> None:
    server, judge = ("http://b" if each == kind else "http://a" for each in ("server", "judge"))
    listed = {"servers": ["http://a/"], "judges": {"http://a/": "llama"}}
    none = Scores(letters={}, ungraded=0, negatives=0, refusals=0)
    by = {"judge_model": "llama", "judge_url": judge, "vllm_url": server}
    known = {
        "policy": policy_file(tmp_path, listed),
        "fleet": Fleet(vllm_url=f"{server}/", adapters_dir=str(tmp_path)),
        "judge": Judge(judge_url=f"{judge}/"),
        "eval_grades": records.eval_grades(none, **by),
        "perf_metrics": records.perf_metrics(records.load_metrics(), vllm_url=server),
    }
    for function in (each.op.compute_fn.decorated_fn for each in steps):
        # It gets nothing else that it could ask or read before.
        with pytest.raises(LoraAssetsError, match=f"^the {kind} (llama at )?http://b is none of"):
            function(*map(known.get, inspect.signature(function).parameters))
