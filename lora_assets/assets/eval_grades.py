"""Stage 5: candidate and live answer side by side, a judge grades, the gate compares."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import dagster as dg
from pydantic import Field

from lora_assets.assets.eval_tables import examples_table, log_grades, rates, scores_table
from lora_assets.assets.ownership import OWNERS
from lora_assets.assets.partitions import data_versions
from lora_assets.assets.pools import SERVING
from lora_assets.assets.run_tags import origin
from lora_assets.assets.served import live_served, take_candidate_place
from lora_assets.assets.verdicts import check_result, now, require_passed
from lora_assets.gates.evaluation import EvalThresholds
from lora_assets.gates.evaluation import eval_gate as decide
from lora_assets.judging.answers import answer_all
from lora_assets.judging.grading import grade_all
from lora_assets.judging.scores import scores
from lora_assets.kubernetes.step_pods import COMPARE_DECISION, JUDGE_ANSWERS
from lora_assets.records.dataset import Row, TrainingData
from lora_assets.records.grades import Answer, EvalGrades, Grade, Side
from lora_assets.records.model_version import ModelVersion
from lora_assets.resources.data_bucket import DataBucket
from lora_assets.resources.fleet import CANDIDATE_SLOT, LIVE_SLOT, SLOT_PATTERN, Fleet
from lora_assets.resources.judge import Judge
from lora_assets.resources.registry import Registry
from lora_assets.resources.tracking import Tracking
from lora_assets.resources.work_folder import WorkFolder

MAX_TOKENS = 256

ANSWERED = "answered by"
"""Metadata of the observation that one side's answers are complete."""


class EvalConfig(dg.Config):
    """Whose answers are graded, and how they are gathered."""

    candidate_adapter: str | None = Field(
        None,
        pattern=SLOT_PATTERN,
        description=f"Candidate adapter slot name; default: the fleet's ({CANDIDATE_SLOT})",
    )
    live_adapter: str | None = Field(
        None,
        pattern=SLOT_PATTERN,
        description=f"Live adapter slot name; default: the fleet's ({LIVE_SLOT})",
    )
    max_concurrent: int = Field(15, ge=1, description="Concurrent requests per step")
    mlflow_experiment: str = Field("vllm-lora-evaluation", description="MLflow experiment name")


class EvalGateConfig(EvalThresholds, dg.Config):
    """The eval gate's thresholds, as parameters of the run."""


@dg.asset(
    partitions_def=data_versions,
    group_name="evaluation",
    owners=OWNERS,
    kinds={"vllm", "mlflow"},
    pool=SERVING,
    code_version="1",
    op_tags=JUDGE_ANSWERS,
)
def eval_grades(
    context: dg.AssetExecutionContext,
    config: EvalConfig,
    training_data: TrainingData,
    staged_deployment: ModelVersion,
    data_bucket: DataBucket,
    registry: Registry,
    fleet: Fleet,
    judge: Judge,
    tracking: Tracking,
    work_folder: WorkFolder,
) -> EvalGrades:
    """Candidate's and live's answers to the eval split, each graded A, B or C by the judge."""
    candidate = staged_deployment
    verdict = registry.verdicts(candidate).get("smoke_test")
    require_passed(verdict, "smoke_test", candidate.digest, candidate.data_version)
    rows = data_bucket.read_unchanged(training_data)["eval"]
    slot = config.candidate_adapter or fleet.candidate_slot
    live_slot = config.live_adapter or fleet.live_slot
    if take_candidate_place(registry, fleet, slot, candidate, work_folder):
        context.log.info(f"{candidate.serving_name} is back in {slot}")
    live = live_served(registry, fleet, live_slot, work_folder)
    sides: dict[Side, ModelVersion] = {"candidate": candidate}
    if live is not None:
        sides["live"] = live
    # Without live: compared again with another one, the candidate's answers and grades stand.
    work = work_folder.keyed("evaluation", data=training_data.digest, candidate=candidate.digest)
    key = f"{work.name}-{live.digest if live else None}"
    tags = {"data.version": candidate.data_version, "adapter.digest": candidate.digest}
    name = f"eval-v{candidate.version}"
    with tracking.run(config.mlflow_experiment, name, key, tags) as run:
        run.dataset(training_data, "eval", "evaluation")
        judge_model, answers, grades = asyncio.run(
            _gather(context, config, rows, sides, fleet, judge, work)
        )
        counted = {side: scores(rows, answers[side], grades, side) for side in sides}
        slots = {"candidate_adapter": slot, "live_adapter": live_slot}
        run.parameters({"judge_model": judge_model, **config.model_dump(), **slots})
        run.parameters({f"{side}_version": version.version for side, version in sides.items()})
        log_grades(run, rows, answers, grades, counted)
    context.add_output_metadata(
        {
            "compared with": f"version {live.version}" if live else "nothing live",
            "judge": judge_model,
            "scores": scores_table(counted),
            "examples": examples_table(rows, answers, grades),
            "mlflow run": dg.MetadataValue.url(tracking.page(run.run_id)),
            "model version": candidate.version,
            "registry page": dg.MetadataValue.url(registry.page(candidate)),
            "digest": candidate.digest,
            **rates(counted),
            **origin(context.run.tags),
        }
    )
    return EvalGrades(
        model_version=candidate.version,
        digest=candidate.digest,
        live_digest=live.digest if live else None,
        data_version=candidate.data_version,
        data_digest=training_data.digest,
        judge_model=judge_model,
        candidate=counted["candidate"],
        live=counted.get("live"),
        mlflow_run_id=run.run_id,
    )


@dg.asset_check(
    asset=eval_grades,
    blocking=True,
    partitions_def=data_versions,
    pool=SERVING,
    op_tags=COMPARE_DECISION,
)
def eval_gate(
    config: EvalGateConfig, eval_grades: EvalGrades, registry: Registry, tracking: Tracking
) -> dg.AssetCheckResult:
    """A-rate, C-rate and refusal rate; alias `eval-passed` or `eval-failed`."""
    verdict = decide(eval_grades, config, now())
    registry.conclude(eval_grades.model_version, verdict, "eval-passed", "eval-failed")
    tracking.store_verdict(eval_grades.mlflow_run_id, verdict)
    return check_result(verdict)


async def _gather(
    context: dg.AssetExecutionContext,
    config: EvalConfig,
    rows: Sequence[Row],
    sides: Mapping[Side, ModelVersion],
    fleet: Fleet,
    judge: Judge,
    work: Path,
) -> tuple[str, Mapping[Side, Sequence[Answer]], Sequence[Grade]]:
    async with judge.client() as client:
        # Asked first: without a judge the answers would be gathered in vain.
        model = await judge.model(client)
    async with fleet.client() as client:

        async def answered(side: Side, version: ModelVersion) -> Sequence[Answer]:
            progress = _progress(context, f"{side}: answered")
            progress(0, len(rows))
            given = await answer_all(
                client,
                version.serving_name,
                rows,
                journal=work / f"answers-{side}.jsonl",
                progress=progress,
                max_concurrent=config.max_concurrent,
                max_tokens=MAX_TOKENS,
            )
            _observe(context, side, len(given))
            return given

        if "live" not in sides:
            _observe(context, "live", 0)
        gathered = await asyncio.gather(*(answered(*each) for each in sides.items()))
    answers = dict(zip(sides, gathered, strict=True))
    async with judge.client() as client:
        grades = await grade_all(
            client,
            model,
            rows,
            answers,
            journal=work / "grades.jsonl",
            progress=_progress(context, f"{model}: graded"),
            max_concurrent=config.max_concurrent,
        )
    return model, answers, grades


def _observe(context: dg.AssetExecutionContext, side: Side, answers: int) -> None:
    """Note in the run's log that a side's answers are complete, for those who wait for them."""
    context.log_event(
        dg.AssetObservation(
            context.asset_key,
            partition=context.partition_key,
            metadata={ANSWERED: side, "answers": answers},
        )
    )


def _progress(context: dg.AssetExecutionContext, what: str) -> Callable[[int, int], None]:
    def report(done: int, total: int) -> None:
        if done == total or done % max(1, total // 2) == 0:
            context.log.info(f"{what} {done} of {total}")

    return report
