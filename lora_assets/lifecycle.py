"""The lifecycle: each stage of an adapter, in order, with everything that belongs to it.

A new gate is an entry here, its pure function in `gates/`, and its check beside its asset.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from lora_assets.records import Record
from lora_assets.records.grades import Side
from lora_assets.records.model_version import Alias
from lora_assets.records.run_outcome import GateOutcome, RunFailed, StepError
from lora_assets.records.verdict import GateName

Phase = Literal["train", "serve"]
"""One run each: many versions train side by side, but the fleet has one candidate slot."""


class Gate(Record):
    """A blocking check on a stage's asset; `remedy` is what to do after it failed.

    `passed` and `failed` are the aliases that its verdict sets. A verdict that
    `compares_with_live` lapses when live changes. A promotion asks for the verdict of a
    `required` gate, except from one of the source aliases in `skipped_from`.
    """

    name: GateName
    remedy: str
    passed: Alias | None = None
    failed: Alias | None = None
    compares_with_live: bool = False
    required: bool = True
    skipped_from: tuple[Alias, ...] = ()


class Step(Record):
    """The assets that one Argo step materialises and the checks (`asset:check`) that it runs.

    A step with neither needs no run. With `until`, the step ends when that side's answers are
    complete; the run goes on, and the next steps follow it.
    """

    assets: tuple[str, ...] = ()
    checks: tuple[str, ...] = ()
    until: Side | None = None

    @property
    def job(self) -> str:
        """Return the job that has the step's part of the graph."""
        asset, _, _ = (*self.assets, *self.checks)[0].partition(":")
        return STAGES[asset].job

    @property
    def selection(self) -> str:
        """Return the step's part of the graph in one word, by which later steps find its run."""
        return "+".join((*self.assets, *self.checks))

    def ops(self, ops: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the configuration of those ops that are in this step."""
        names = {*self.assets, *(check.replace(":", "_") for check in self.checks)}
        return {name: config for name, config in ops.items() if name in names}


class Stage(Record):
    """An asset of the graph: the phase and the job that make it, its gate, its Argo steps."""

    asset: str
    phase: Phase = "serve"
    job: str
    gate: Gate | None = None
    steps: Mapping[str, Step]


PROMOTION = "live_deployment"
WHOLE_GRAPH = "lifecycle"

_SOUND = ("training_data:data_is_sound",)
# Without the asset: materialised anew, it would make everything after it count as outdated.
_CHECK_DATA = Step(checks=_SOUND)
_GRADES = Step(assets=("eval_grades",))

_STAGES = (
    Stage(
        asset="training_data",
        phase="train",
        job="train",
        gate=Gate(
            name="data_is_sound",
            remedy="Correct the data and add it as a new data version.",
            required=False,
        ),
        steps={"download-data": Step(assets=("training_data",), checks=_SOUND)},
    ),
    Stage(
        asset="adapter",
        phase="train",
        job="train",
        gate=Gate(name="quality_gate", remedy="Train again with other parameters or better data."),
        steps={"train": Step(assets=("adapter",))},
    ),
    Stage(
        asset="gate_result",
        phase="train",
        job="train",
        steps={"quality-gate": Step(assets=("gate_result",), checks=("adapter:quality_gate",))},
    ),
    Stage(
        asset="staged_deployment",
        job="deploy",
        gate=Gate(
            name="smoke_test",
            remedy="Look at the replicas' logs, then deploy the version again.",
            passed="staged",
        ),
        steps={
            "load-adapter": Step(assets=("staged_deployment",)),
            "smoke-test": Step(checks=("staged_deployment:smoke_test",)),
            "set-staged-alias": Step(),
        },
    ),
    Stage(
        asset="eval_grades",
        job="evaluate",
        gate=Gate(
            name="eval_gate",
            remedy="Read the examples on eval_grades' page; train from better data.",
            passed="eval-passed",
            failed="eval-failed",
            compares_with_live=True,
        ),
        steps={
            "download-eval-data": _CHECK_DATA,
            "inference-candidate": _GRADES.model_copy(update={"until": "candidate"}),
            "inference-live": _GRADES.model_copy(update={"until": "live"}),
            "judge-answers": _GRADES,
            "compare-decision": Step(checks=("eval_grades:eval_gate",)),
        },
    ),
    Stage(
        asset="perf_metrics",
        job="performance",
        gate=Gate(
            name="perf_gate",
            remedy="Look at the latencies on perf_metrics' page; measure again on a quiet fleet.",
            passed="perf-passed",
            failed="perf-failed",
            compares_with_live=True,
            skipped_from=("eval-passed",),
        ),
        steps={
            "download-eval-data": _CHECK_DATA,
            "run-load-test": Step(assets=("perf_metrics",)),
            "perf-decision": Step(checks=("perf_metrics:perf_gate",)),
        },
    ),
    Stage(
        asset=PROMOTION,
        job="promote",
        steps={"promote-adapter": Step(assets=(PROMOTION,))},
    ),
)

STAGES: Mapping[str, Stage] = {stage.asset: stage for stage in _STAGES}
"""The graph in order, by asset: each one is made from the one before it, past that one's gate."""

GATES: Mapping[str, Gate] = {s.gate.name: s.gate for s in _STAGES if s.gate is not None}

ABOUT_JOBS: Mapping[str, str] = {
    WHOLE_GRAPH: "The whole graph of one data version, from its data to live traffic",
    "train": "Train an adapter; past its quality gate it is candidate",
    "deploy": "Load the candidate on every replica; past its smoke test it is staged",
    "evaluate": "Grade the staged adapter's answers and live's; the gate sets eval-passed",
    "performance": "Load-test the adapter that passed the evaluation; the gate sets perf-passed",
    "promote": "Give the live traffic to an adapter that passed its gates",
}
"""What each job does, as Dagster shows it."""

JOBS: dict[str, tuple[str, ...]] = {WHOLE_GRAPH: tuple(STAGES)}
"""The assets that each job makes; but for the whole graph, each is a command and a workflow."""

STEPS: dict[str, dict[str, Step]] = {}
"""The steps of each job's Argo workflow, in order (specification, "Steps")."""

for _stage in _STAGES:
    JOBS[_stage.job] = (*JOBS.get(_stage.job, ()), _stage.asset)
    STEPS.setdefault(_stage.job, {}).update(_stage.steps)


def next_step(asset: str, verdict: bool | None = None) -> str:
    """Return what comes after an asset, with the `verdict` of its gate where there is one."""
    stage = STAGES[asset]
    if stage.gate is not None and verdict is None:
        return f"the gate {stage.gate.name} decides."
    if stage.gate is not None and not verdict:
        return stage.gate.remedy
    after = [*STAGES.values()][[*STAGES].index(asset) + 1 :]
    if not after:
        return "'lora-assets rollback' gives the traffic back."
    return f"{after[0].asset}, by this run or by 'lora-assets {after[0].job}'."


def run_failed(
    gates: Sequence[GateOutcome], errors: Sequence[StepError], otherwise: str
) -> RunFailed:
    """Name the first gate that failed; else every step's error; else `otherwise`."""
    for gate in gates:
        if not gate.passed:
            reason = f"{gate.name} stopped it: {gate.description}. {GATES[gate.name].remedy}"
            return RunFailed((reason,), gate.name)
    return RunFailed(tuple(error.reason for error in errors) or (otherwise,))
