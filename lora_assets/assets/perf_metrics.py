"""Stage 6: the adapter under concurrent load, and the gate on what its clients saw."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Literal

import dagster as dg

from lora_assets.assets.comparison import conclude, prepare
from lora_assets.assets.eval_grades import eval_grades
from lora_assets.assets.figures import latency_distribution, plot
from lora_assets.assets.gate_pages import gate_pages
from lora_assets.assets.graph import GATE, SERVING, stage_asset
from lora_assets.assets.pages import pages_of, progress_log, show
from lora_assets.assets.perf_tables import STORED_SAMPLES, headline, limit_lines, numbers, shown_of
from lora_assets.assets.verdicts import check_result, now, under
from lora_assets.gates.performance import PerfThresholds, drift
from lora_assets.gates.performance import perf_gate as decide
from lora_assets.gates.policy import reasons_of_policy
from lora_assets.gates.promotion import Case, outlook
from lora_assets.kubernetes.step_pods import step_pod
from lora_assets.load_test.generator import LoadTest, ModelLoad
from lora_assets.load_test.lag import lateness
from lora_assets.load_test.ratios import Alternation, change
from lora_assets.load_test.summary import contradictions, summarise
from lora_assets.parameters import PerfOptions
from lora_assets.records.dataset import TrainingData
from lora_assets.records.load import (
    LoadConditions,
    LoadMetrics,
    LoadSamples,
    PerfMetrics,
    ServerHistogram,
)
from lora_assets.records.model_version import ModelVersion
from lora_assets.resources.data_bucket import DataBucket
from lora_assets.resources.fleet import Fleet
from lora_assets.resources.policy import PolicyFile
from lora_assets.resources.registry import Registry
from lora_assets.resources.server_metrics import ServerMetrics
from lora_assets.resources.tracked_run import TrackedRun
from lora_assets.resources.tracking import Tracking
from lora_assets.resources.work_folder import WorkFolder
from lora_assets.serving import http_client

if TYPE_CHECKING:
    from matplotlib.figure import Figure

STORED_METRICS = "load_metrics"


class PerfConfig(PerfOptions, dg.Config):
    """How the load test is run, as parameters of the run."""


class PerfGateConfig(PerfThresholds, dg.Config):
    """The perf gate's thresholds, as parameters of the run."""


@stage_asset("evaluation", {"vllm", "mlflow"}, "run-load-test", pool=SERVING, deps=[eval_grades])
def perf_metrics(
    context: dg.AssetExecutionContext,
    config: PerfConfig,
    training_data: TrainingData,
    staged_deployment: ModelVersion,
    data_bucket: DataBucket,
    registry: Registry,
    fleet: Fleet,
    policy: PolicyFile,
    server_metrics: ServerMetrics,
    tracking: Tracking,
    work_folder: WorkFolder,
) -> PerfMetrics:
    """Latency, TTFT, throughput and success of the candidate under concurrent streaming clients."""
    demanded = policy.read()
    demanded.require("server", fleet.address)
    at = fleet.address if demanded.servers else None
    paired = config.decision_rule == "paired"
    clients = (data_bucket, registry, fleet, work_folder)
    comparison = prepare(context, config, "eval_gate", staged_deployment, training_data, *clients)
    candidate, live = comparison.candidate, comparison.live
    rows = comparison.rows[: config.max_samples or None]
    prompts = [row.prompt_inference for row in rows] * config.passes
    alone = LoadTest([candidate.serving_name], prompts, config.concurrency, config.max_tokens)
    servers = len(fleet.discover().members), asyncio.run(_server(fleet))
    measure = fleet.shares_machine if config.measure_baseline is None else config.measure_baseline
    conditions = alone.conditions(*servers)
    stored = None if measure else _stored_baseline(context, live, registry, conditions, at)
    baseline = None if paired else stored
    measured_live = live if baseline is None else None
    source: Literal["none", "measured", "stored"] = (
        "stored" if baseline else "measured" if measured_live else "none"
    )
    with comparison.tracked(
        tracking, config.mlflow_experiment, "perf", context.run.run_id, "load test"
    ) as run:
        run.parameters({**config.model_dump(), **comparison.slots, "measure_baseline": measure})
        # A candidate that is live already is its own baseline, and loaded once.
        names = [version.serving_name for version in (candidate, measured_live) if version]
        models = [*dict.fromkeys(names)]
        test = replace(alone, models=models)
        turns = (
            Alternation(names[0], names[1], config, config.max_blocks) if measured_live else None
        )
        loads, server = asyncio.run(_measure(context, test, turns, fleet, server_metrics))
        measured = {
            name: summarise(load.samples, load.duration).model_copy(
                update={"conditions": conditions}
            )
            for name, load in loads.items()
        }
        if measured_live is not None:
            baseline = measured[measured_live.serving_name]
        lag = max(load.lag for load in loads.values())
        ttfts = [each.ttft.p95 for each in measured.values() if each.ttft]
        late = lateness(lag, max(ttfts, default=0.0))
        if late and fleet.shares_machine:
            # Server and clients are late alike: it is a stand-in's, and no fleet's, speed.
            context.log.warning(late[0])
            late = ()
        every = [sample for load in loads.values() for sample in load.samples]
        ours = loads[candidate.serving_name].samples
        theirs = loads[measured_live.serving_name].samples if measured_live else None
        both = baseline and baseline.latency and measured[candidate.serving_name].latency
        metrics = PerfMetrics(
            **comparison.identity,
            vllm_url=fleet.address,
            candidate=measured[candidate.serving_name],
            baseline=baseline,
            baseline_source=source,
            server=server,
            contradictions=(*late, *contradictions(every, server)),
            ratios=turns.ratios if turns else (),
            looks=turns.looks if turns else None,
            change=change(ours, theirs) if theirs and both else None,
            drift=drift(baseline, stored, config) if paired and baseline and stored else (),
            mlflow_run_id=run.run_id,
        )
        samples = LoadSamples(candidate=ours, live=theirs)
        figure = latency_distribution(samples, {})
        _keep(run, metrics, samples, figure)
    shown = shown_of(metrics, figure) | pages_of(registry, candidate, run.run_id)
    show(context, headline(metrics), shown)
    return metrics


@dg.asset_check(**GATE, asset=perf_metrics, pool=SERVING, op_tags=step_pod("perf-decision"))
def perf_gate(
    config: PerfGateConfig, perf_metrics: PerfMetrics, registry: Registry, policy: PolicyFile
) -> dg.AssetCheckResult:
    """Absolute floors, and no regression against live; alias `perf-passed` or `perf-failed`."""
    policy.read().require("server", perf_metrics.vllm_url)
    verdict = under(policy, decide(perf_metrics, config, now()))
    version = conclude(perf_metrics, verdict, registry)
    samples = registry.tracking.record(perf_metrics.mlflow_run_id, STORED_SAMPLES, LoadSamples)
    figure = latency_distribution(samples, limit_lines(verdict, perf_metrics))
    live = registry.current_live()
    verdicts = registry.verdicts(version)
    short = reasons_of_policy(verdicts, "perf-passed", policy.read(), now())
    reasons = (*Case(version, live, verdicts, "perf-passed").against, *short)
    pages = gate_pages(registry, verdict, version)
    pages |= {"latency": plot(figure), "if promoted now": outlook(live, reasons)}
    return check_result(verdict, pages)


async def _measure(
    context: dg.AssetExecutionContext,
    test: LoadTest,
    turns: Alternation | None,
    fleet: Fleet,
    server_metrics: ServerMetrics,
) -> tuple[Mapping[str, ModelLoad], tuple[ServerHistogram, ...]]:
    """Return what the clients saw of each model, and the servers' histograms over that window."""
    # No load for a test that can't be measured.
    server_metrics.begin(fleet)
    # Before the window, in which the server counts every request.
    context.log.info(f"load test: warming up {', '.join(test.models)}")
    async with fleet.client() as client:
        await test.warm_up(client)
    window = server_metrics.begin(fleet)

    def progress() -> Callable[[int, int], None]:
        # A log for each pass: what was sent before says nothing of its rate.
        if turns is not None and turns.looks.at:
            context.log.info(f"undecided after {turns.looks.at[-1]} blocks: sent again")
        return progress_log(context, "load test:", " requests", parts=4)

    async with fleet.client() as client:
        again = turns and turns.run(test, client, progress)
        loads = await (again or test.run(client, progress()))
    return loads, server_metrics.end(fleet, window)


def _keep(run: TrackedRun, metrics: PerfMetrics, samples: LoadSamples, figure: "Figure") -> None:
    """Leave numbers, samples and plot in the MLflow run."""
    run.record(metrics.candidate, STORED_METRICS)
    run.metrics(numbers(metrics.candidate, "candidate."))
    if metrics.baseline is not None:
        run.metrics(numbers(metrics.baseline, "baseline."))
    run.metrics(
        {f"server.{h.metric.removeprefix('vllm:')}.p95_low": h.p95_low for h in metrics.server}
    )
    run.record(samples, STORED_SAMPLES)
    run.figure(figure, "latency")


async def _server(fleet: Fleet) -> str:
    async with fleet.client() as client:
        return await http_client.build(client)


def _stored_baseline(
    context: dg.AssetExecutionContext,
    live: ModelVersion | None,
    registry: Registry,
    conditions: LoadConditions,
    at: str | None,
) -> LoadMetrics | None:
    """The metrics of live's own last load test, `at` a server; None where none passed like this."""
    if live is None:
        return None
    verdict = registry.verdicts(live).get("perf_gate")
    if verdict is None or not verdict.passed or verdict.evidence_run_id is None:
        context.log.info(f"live version {live.version} has no passed load test: measured")
        return None
    stored = registry.tracking.record(verdict.evidence_run_id, STORED_METRICS, LoadMetrics)
    others = [] if at in (None, verdict.vllm_url) else ["vllm_url"]
    others += stored.conditions.differences(conditions) if stored.conditions else ["its conditions"]
    if others:
        context.log.info(
            f"live version {live.version} was load-tested otherwise ({', '.join(others)}): measured"
        )
        return None
    return stored
