"""The steps of the specification's workflows, as parts of the graph."""

from collections.abc import Mapping
from typing import Any

from lora_assets.records import Record
from lora_assets.records.grades import Side


class Step(Record):
    """What one run of Dagster materialises and checks; with neither, no run is needed.

    Checks are `asset:check`. With `until`, the step ends when that side's answers are complete
    and leaves its run to the steps after it, which follow the same one.
    """

    job: str
    assets: tuple[str, ...] = ()
    checks: tuple[str, ...] = ()
    until: Side | None = None

    @property
    def selection(self) -> str:
        """The run's part of the graph in one word: a run is found again by it."""
        return "+".join((*self.assets, *self.checks))

    def ops(self, ops: Mapping[str, Any]) -> Mapping[str, Any]:
        """The configuration of those ops that are in this step."""
        names = {*self.assets, *(check.replace(":", "_") for check in self.checks)}
        return {name: config for name, config in ops.items() if name in names}


# The splits are there, sound and those that the adapter was trained on. They are not read anew
# into the graph: what hangs on them would count as outdated.
_EVAL_DATA = Step(job="train", checks=("training_data:data_is_sound",))
_GRADES = Step(job="evaluate", assets=("eval_grades",))

STEPS: Mapping[str, Mapping[str, Step]] = {
    "train": {
        "download-data": Step(
            job="train", assets=("training_data",), checks=("training_data:data_is_sound",)
        ),
        "train": Step(job="train", assets=("adapter",)),
        "quality-gate": Step(
            job="train", assets=("gate_result",), checks=("adapter:quality_gate",)
        ),
    },
    "deploy": {
        "load-adapter": Step(job="deploy", assets=("staged_deployment",)),
        "smoke-test": Step(job="deploy", checks=("staged_deployment:smoke_test",)),
        "set-staged-alias": Step(job="deploy"),
    },
    "evaluate": {
        "download-eval-data": _EVAL_DATA,
        "inference-candidate": _GRADES.model_copy(update={"until": "candidate"}),
        "inference-live": _GRADES.model_copy(update={"until": "live"}),
        "judge-answers": _GRADES,
        "compare-decision": Step(job="evaluate", checks=("eval_grades:eval_gate",)),
    },
    "performance": {
        "download-eval-data": _EVAL_DATA,
        "run-load-test": Step(job="performance", assets=("perf_metrics",)),
        "perf-decision": Step(job="performance", checks=("perf_metrics:perf_gate",)),
    },
    "promote": {"promote-adapter": Step(job="promote", assets=("live_deployment",))},
}
"""Stage, step: what it does (specification, "Steps")."""
