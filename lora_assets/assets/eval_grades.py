"""Stage 5: candidate and live answer side by side, a judge grades, the gate compares."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial

import dagster as dg

from lora_assets.assets.comparison import Comparison, conclude, prepare
from lora_assets.assets.eval_tables import examples_table, headline, log_grades, rates, shown_of
from lora_assets.assets.gate_pages import gate_pages
from lora_assets.assets.graph import GATE, SERVING, stage_asset
from lora_assets.assets.other_splits import compared, other_splits
from lora_assets.assets.pages import pages_of, progress_log, show
from lora_assets.assets.verdicts import check_result, now, under
from lora_assets.gates.evaluation import DecisionRule, EvalThresholds, what_it_shows
from lora_assets.gates.evaluation import eval_gate as decide
from lora_assets.gates.policy import Policy
from lora_assets.judging.evaluation import Evaluated, Evaluation
from lora_assets.judging.journal import key_of
from lora_assets.judging.labels import corrected
from lora_assets.judging.scores import scores
from lora_assets.judging.slices import compare_slices, slice_rows
from lora_assets.kubernetes.step_pods import step_pod
from lora_assets.parameters import EvalOptions
from lora_assets.records.dataset import Row, TrainingData
from lora_assets.records.grades import EvalGrades, Side
from lora_assets.records.model_version import ModelVersion
from lora_assets.records.progress import ANSWERED
from lora_assets.resources.data_bucket import DataBucket
from lora_assets.resources.fleet import Fleet
from lora_assets.resources.judge import Judge
from lora_assets.resources.policy import PolicyFile
from lora_assets.resources.registry import Registry
from lora_assets.resources.tracking import Tracking
from lora_assets.resources.work_folder import WorkFolder
from lora_assets.serving import http_client

MAX_TOKENS = 256


class EvalConfig(EvalOptions, dg.Config):
    """Whose answers are graded, and how, as parameters of the run."""


class EvalGateConfig(EvalThresholds, dg.Config):
    """The eval gate's thresholds, as parameters of the run."""


@stage_asset("evaluation", {"vllm", "mlflow"}, "judge-answers", pool=SERVING)
def eval_grades(
    context: dg.AssetExecutionContext,
    config: EvalConfig,
    training_data: TrainingData,
    staged_deployment: ModelVersion,
    data_bucket: DataBucket,
    registry: Registry,
    fleet: Fleet,
    judge: Judge,
    policy: PolicyFile,
    tracking: Tracking,
    work_folder: WorkFolder,
) -> EvalGrades:
    """Candidate's and live's answers to the eval split, each graded A, B or C by the judge."""
    demanded = policy.read()
    # Before one that doesn't count is asked for anything, the name of its model included.
    demanded.require("server", fleet.address)
    demanded.require("judge", judge.address, judge.judge_model)
    # What others have answered, or graded under that name, is then not taken over.
    at = {"server": fleet.address} if demanded.servers else {}
    by = {"judge": judge.address} if demanded.judges else {}
    clients = (data_bucket, registry, fleet, work_folder)
    comparison = prepare(context, config, "smoke_test", staged_deployment, training_data, *clients)
    live, rows = comparison.live, comparison.rows
    slices = slice_rows(rows, config.slice_keys)
    rule = config if live else config.model_copy(update={"decision_rule": "specification"})
    resolution = what_it_shows(len(rows), sum(row.is_negative for row in rows), rule)
    context.log.info("; ".join(resolution))
    others, lacking = other_splits(config.other_versions, comparison, rule, data_bucket)
    labels = data_bucket.labels(training_data)
    evaluation_of = partial(_evaluation, context, config, rule, comparison, work_folder, at, by)
    besides = {version: evaluation_of(split) for version, split in others.items()}
    evaluation = replace(
        evaluation_of(rows),
        answered=lambda side, count: _observe(context, side, count),
        controls=config.judge_controls,
        labels=labels,
    )
    key = f"{evaluation.answers['candidate'].parent.name}-{live.digest if live else None}"
    with comparison.tracked(tracking, config.mlflow_experiment, "eval", key, "evaluation") as run:
        if live is None:
            _observe(context, "live", 0)
        judge_model, found, more = asyncio.run(_gather(evaluation, besides, fleet, judge, demanded))
        answers, grades = found.answers, found.grades
        counted = {
            side: scores(rows, answers[side], grades, side, found.judged) for side in answers
        }
        record = EvalGrades(
            **comparison.identity,
            judge_model=judge_model,
            judge_url=judge.address,
            vllm_url=fleet.address,
            unread=next((grade.reason for grade in grades if grade.letter is None), ""),
            measured=found.measured,
            kept=found.kept,
            looks=found.looks,
            candidate=counted["candidate"],
            live=counted.get("live"),
            slices=compare_slices(rows, answers, grades, slices) if live else (),
            corrected=corrected(answers, grades, labels) if live else (),
            others=tuple(compared(name, others[name], each) for name, each in more.items()),
            lacking=lacking,
            mlflow_run_id=run.run_id,
        )
        shown = shown_of(record, counted, resolution)
        for said in (shown["judge measured"], record.looks, *record.kept, *lacking):
            if said is not None:
                context.log.info(str(said))
        versions = {f"{side}_version": v.version for side, v in comparison.sides.items()}
        run.parameters(
            {"judge_model": judge_model, **config.model_dump(), **comparison.slots, **versions}
        )
        compared_on = (*record.slices, *(each.every for each in record.others))
        log_grades(run, rows, answers, grades, counted, compared_on)
        if found.measured is not None:
            run.record(found.measured, "judge_measure")
    pages = {
        "compared with": f"version {live.version}" if live else "nothing live",
        **shown,
        "examples": examples_table(rows, answers, grades),
        **rates(counted),
        **pages_of(registry, comparison.candidate, run.run_id),
    }
    show(context, headline(counted), pages)
    return record


@dg.asset_check(**GATE, asset=eval_grades, pool=SERVING, op_tags=step_pod("compare-decision"))
def eval_gate(
    config: EvalGateConfig, eval_grades: EvalGrades, registry: Registry, policy: PolicyFile
) -> dg.AssetCheckResult:
    """A-rate, C-rate and refusal rate; alias `eval-passed` or `eval-failed`."""
    demanded = policy.read()
    demanded.require("server", eval_grades.vllm_url)
    demanded.require("judge", eval_grades.judge_url, eval_grades.judge_model)
    verdict = under(policy, decide(eval_grades, config, now()))
    version = conclude(eval_grades, verdict, registry)
    return check_result(verdict, gate_pages(registry, verdict, version))


def _evaluation(
    context: dg.AssetExecutionContext,
    config: EvalConfig,
    rule: DecisionRule,
    comparison: Comparison,
    work_folder: WorkFolder,
    at: Mapping[str, str],
    by: Mapping[str, str],
    rows: Sequence[Row],
) -> Evaluation:
    """Return the evaluation of both sides on `rows`, without anything that measures the judge.

    What is kept goes by the rows alone: whatever they are compared with, answers and grades stand.
    """
    data = key_of([row.model_dump() for row in rows])
    folders = {
        side: work_folder.keyed(
            "evaluation", rows=data, model=version.model, adapter=version.digest, **at
        )
        for side, version in comparison.sides.items()
    }
    return Evaluation(
        rows,
        {side: version.serving_name for side, version in comparison.sides.items()},
        {side: folder / "answers-candidate.jsonl" for side, folder in folders.items()},
        work_folder.keyed("evaluation", rows=data, **by) / "grades.jsonl",
        progress=lambda what: progress_log(context, what, parts=2),
        fresh=config.fresh,
        controls=0,
        sequential=rule if config.sequential and rule.decision_rule == "paired" else None,
        max_concurrent=config.max_concurrent,
        max_tokens=MAX_TOKENS,
    )


async def _gather(
    evaluation: Evaluation,
    besides: Mapping[str, Evaluation],
    fleet: Fleet,
    judge: Judge,
    demanded: Policy,
) -> tuple[str, Evaluated, Mapping[str, Evaluated]]:
    """Return the judge's model, what it found, and what it found besides if there is need."""
    async with judge.client() as grading, fleet.client() as answering:
        # Asked first: without a judge the answers would be gathered in vain.
        model = await judge.model(grading)
        demanded.require("judge", judge.address, model)
        builds = (await http_client.build(answering), await http_client.build(grading))

        async def found(each: Evaluation) -> Evaluated:
            return await replace(each, judge_model=model, builds=builds).run(answering, grading)

        own = await found(evaluation)
        failed = own.looks is not None and own.looks.ended == "failed"
        more = {} if failed else {name: await found(each) for name, each in besides.items()}
        return model, own, more


def _observe(context: dg.AssetExecutionContext, side: Side, answers: int) -> None:
    """Note in the run's log that a side's answers are complete, for those who wait for them."""
    context.log_event(
        dg.AssetObservation(
            context.asset_key,
            partition=context.partition_key,
            metadata={ANSWERED: side, "answers": answers},
        )
    )
