"""The table of steps, held against the graph and the specification, and why a run failed."""

import dagster as dg
import pytest

from lora_assets.definitions import defs
from lora_assets.lifecycle import GATES, STEPS, next_step, run_failed
from lora_assets.records.run_outcome import GateOutcome, StepError

ALL = [(stage, name) for stage, steps in STEPS.items() for name in steps]
OURS = StepError(
    step="eval_grades",
    class_name="LoraAssetsError",
    message="lora_assets.errors.LoraAssetsError: http://a: serves nothing. Deploy it.\n",
    whole="a stack trace",
)
BUG = StepError(step="adapter", class_name="KeyError", message="KeyError: 'a'", whole="its trace\n")
PASSED = GateOutcome(name="data_is_sound", passed=True, description="rows 8")
FAILED = GateOutcome(name="eval_gate", passed=False, description="a_rate 0.1 (must be >= 0.7)")


@pytest.mark.parametrize(("stage", "name"), ALL)
def test_a_step_is_a_part_of_its_job(stage: str, name: str) -> None:
    step = STEPS[stage][name]
    if name == "set-staged-alias":
        assert step.selection == ""
        return
    part = defs.resolve_job_def(step.job).get_subset(
        asset_selection={dg.AssetKey(asset) for asset in step.assets},
        asset_check_selection={dg.AssetCheckKey.from_user_string(c) for c in step.checks},
    )
    ops = {node.name for node in part.nodes}
    assert ops == {*step.assets, *(check.replace(":", "_") for check in step.checks)}


def test_a_step_takes_the_configuration_of_its_own_ops() -> None:
    ops = {"adapter": {"num_epochs": 1}, "adapter_quality_gate": {"max_eval_loss": 0.5}}
    assert STEPS["train"]["quality-gate"].ops(ops) == {
        "adapter_quality_gate": {"max_eval_loss": 0.5}
    }
    assert STEPS["train"]["download-data"].ops(ops) == {}


def test_the_steps_of_an_evaluation_that_share_a_run_are_found_by_one_selection() -> None:
    shared = ("inference-candidate", "inference-live", "judge-answers")
    assert {STEPS["evaluate"][name].selection for name in shared} == {"eval_grades"}
    others = [STEPS["evaluate"][name] for name in ("download-eval-data", "compare-decision")]
    assert len({"eval_grades", *(step.selection for step in others)}) == 3


def test_a_gate_that_failed_is_the_reason_whatever_broke_after_it() -> None:
    failed = run_failed([PASSED, FAILED], [OURS], "run failed")
    assert failed.reasons == (
        f"eval_gate stopped it: a_rate 0.1 (must be >= 0.7). {GATES['eval_gate'].remedy}",
    )
    assert failed.gate == "eval_gate"


def test_an_error_for_a_person_is_one_line_and_a_bug_keeps_its_trace() -> None:
    failed = run_failed([PASSED], [OURS, BUG], "run failed")
    assert failed.reasons == (
        "eval_grades: http://a: serves nothing. Deploy it.",
        "adapter: its trace",
    )
    assert failed.gate is None


def test_a_run_that_failed_outside_its_steps_says_why_itself() -> None:
    failed = run_failed([], [], "run x: its pod is gone")
    assert failed.reasons == ("run x: its pod is gone",)


def test_after_an_asset_comes_its_gate_and_after_that_the_next_stage_or_what_to_do() -> None:
    assert next_step("adapter") == "the gate quality_gate decides."
    assert next_step("adapter", False) == GATES["quality_gate"].remedy
    assert next_step("eval_grades", True).startswith("perf_metrics, ")
    assert next_step("gate_result") == "staged_deployment, by this run or by 'lora-assets deploy'."
    assert "rollback" in next_step("live_deployment")
