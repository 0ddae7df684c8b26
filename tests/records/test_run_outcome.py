from lora_assets.lifecycle import GATES
from lora_assets.records.run_outcome import GateOutcome, RunFailed, StepError

OURS = StepError(
    step="eval_grades",
    class_name="LoraAssetsError",
    message="lora_assets.errors.LoraAssetsError: http://a: serves nothing. Deploy it.\n",
    whole="a stack trace",
)
BUG = StepError(step="adapter", class_name="KeyError", message="KeyError: 'a'", whole="its trace\n")
PASSED = GateOutcome(name="data_is_sound", passed=True, description="rows 8")
FAILED = GateOutcome(name="eval_gate", passed=False, description="a_rate 0.1 (must be >= 0.7)")


def test_a_gate_that_failed_is_the_reason_whatever_broke_after_it() -> None:
    failed = RunFailed.from_log([PASSED, FAILED], [OURS], "run failed")
    assert failed.reasons == (
        f"eval_gate stopped it: a_rate 0.1 (must be >= 0.7). {GATES['eval_gate'].remedy}",
    )
    assert failed.gate == "eval_gate"


def test_an_error_for_a_person_is_one_line_and_a_bug_keeps_its_trace() -> None:
    failed = RunFailed.from_log([PASSED], [OURS, BUG], "run failed")
    assert failed.reasons == (
        "eval_grades: http://a: serves nothing. Deploy it.",
        "adapter: its trace",
    )
    assert failed.gate is None


def test_a_run_that_failed_outside_its_steps_says_why_itself() -> None:
    assert RunFailed.from_log([], [], "run x: its pod is gone").reasons == (
        "run x: its pod is gone",
    )
