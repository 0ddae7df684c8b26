"""What each parameter of the specification changes, beyond being passed on.

Tested elsewhere: data-version, lora-config, mlflow-tracking-uri, judge-url and prometheus-url by
tests/cli/test_check.py; learning-rate, num-epochs, batch-size, max-seq-length and training's
mlflow-experiment by tests/assets/test_adapter.py and tests/training; model-name by
tests/remote/test_stages.py; live-adapter by tests/assets/test_slot_names.py; deployment and
namespace by tests/cli/test_stack.py and tests/serving/test_discovery.py; max-concurrent by
tests/judging/test_answers.py; concurrency by tests/load_test/test_generator.py; source-alias and
allow-older by tests/assets/test_live_deployment.py.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

import click
import pytest
from pydantic import BaseModel

from lora_assets.assets.adapter import QualityConfig
from lora_assets.assets.eval_grades import EvalGateConfig
from lora_assets.assets.perf_metrics import PerfGateConfig
from lora_assets.assets.perf_tables import STORED_SAMPLES
from lora_assets.cli import stages
from lora_assets.cli.config_options import chosen
from lora_assets.gates.evaluation import eval_gate
from lora_assets.gates.performance import perf_gate
from lora_assets.gates.quality import quality_gate
from lora_assets.records.dataset import TrainingData
from lora_assets.records.grades import Scores
from lora_assets.records.load import LoadMetrics, LoadSamples, PerfMetrics
from lora_assets.records.verdict import Verdict
from lora_assets.resources.mlflow_client import mlflow_client
from lora_assets.resources.tracking import DATA_SOURCE
from lora_assets.stack_resources import Resources
from tests.support.commands import Run, keep, register, serve
from tests.support.records import (
    NOW,
    eval_grades,
    load_metrics,
    passed_verdict,
    perf_metrics,
    trained_adapter,
)
from tests.support.remote_dagster import small_data
from tests.support.stack import trained

pytestmark = pytest.mark.integration

Config = TypeVar("Config", bound=BaseModel)


def test_s3_data_bucket_is_where_data_come_from_while_records_stay(
    run: Run, environment: Mapping[str, str], resources: Resources,
    adapter_folders: tuple[Path, ...], tmp_path: Path,
) -> None:  # fmt: skip
    named = tmp_path / "named"
    small_data(named)
    download = ("train", "--step", "download-data", "--s3-data-bucket", named.as_uri())
    assert run(environment, *download)[0] == 0
    record = tmp_path / "bucket" / "lora-assets" / "records" / "training_data" / "1.json"
    data = TrainingData.model_validate_json(record.read_bytes())
    assert data.source.startswith(named.as_uri())
    assert [path.name for path in named.iterdir()] == ["data"]

    adapter = trained(resources, adapter_folders[0], "1")
    resources.tracking.reopen(adapter.mlflow_run_id).tags({DATA_SOURCE: data.source})
    same_data = adapter.model_copy(update={"data_digest": data.digest})
    resources.registry.set_alias("staged", resources.registry.register(same_data))
    evaluate = ("evaluate", "--step", "download-eval-data")
    assert run(environment, *evaluate)[0] == 0
    ended, _ = run(environment, *evaluate, "--s3-data-bucket", (tmp_path / "empty").as_uri())
    assert str(ended).startswith(f"error: Data version 1 has no {tmp_path.as_uri()}/empty/")


def test_another_vllm_url_is_the_fleet_even_where_a_deployment_is_configured(
    run: Run, environment: Mapping[str, str], resources: Resources,
    adapter_folders: tuple[Path, ...],
) -> None:  # fmt: skip
    version = register(resources, adapter_folders[0], "candidate")
    keep(resources, "gate_result", version)
    production = {"VLLM_URL": "http://127.0.0.1:9", "VLLM_DEPLOYMENT": "vllm"}
    source, slot = f"--adapter-source=version:{version.version}", "--slot-name=named-slot"
    load = ("deploy", "--step=load-adapter", f"--vllm-url={environment['VLLM_URL']}", source, slot)
    ended, _ = run({**environment, **production, "VLLM_SERVICE": "a/b"}, *load)
    assert "is not the fleet that VLLM_SERVICE names (a/b)" in str(ended)
    (replica,) = resources.fleet.discover().members
    assert version.serving_name not in replica.loaded()
    assert run({**environment, **production, "VLLM_SERVICE": ""}, *load)[0] == 0
    assert Path(replica.loaded()["named-slot"]).name == version.digest
    replica.folder.clear_slot("named-slot")


def test_an_empty_judge_model_is_found_by_asking_the_judge(
    run: Run, environment: Mapping[str, str], tmp_path: Path
) -> None:
    small_data(tmp_path / "bucket")
    named = {**environment, "JUDGE_MODEL": "llama"}
    check = ("check", "--data-version", "1")
    assert "does not serve llama, but " in str(run(named, *check)[0])
    assert run(named, *check, "--judge-model=") == (0, "")


def given(command: click.Command, config: type[Config], option: str) -> Config:
    """Return what a run is configured with when a command is given one option."""
    typed = command.make_context("lora-assets", [option] if option else [])
    return config(**chosen(config, typed.params))


def of_training(option: str) -> Verdict:
    adapter = trained_adapter(loss=0.5, perplexity=1.65)
    return quality_gate(adapter, given(stages.train, QualityConfig, option), NOW)


def of_evaluation(option: str) -> Verdict:
    letters = {"A": 80, "B": 15, "C": 5}
    grades = eval_grades(Scores(letters=letters, ungraded=0, negatives=20, refusals=19))
    return eval_gate(grades, given(stages.evaluate, EvalGateConfig, option), NOW)


LIVE = load_metrics(latency=4.0, ttft=0.5, throughput=4.0, success=0.99)


def of_performance(option: str, live: LoadMetrics | None = LIVE) -> Verdict:
    candidate = load_metrics(latency=4.4, ttft=0.52, throughput=3.6, success=0.995)
    limits = given(stages.performance, PerfGateConfig, option)
    return perf_gate(perf_metrics(candidate, live), limits, NOW)


def of_first_performance(option: str) -> Verdict:
    return of_performance(option, None)


@pytest.mark.parametrize(
    "decided", [of_training, of_evaluation, of_performance, of_first_performance]
)
def test_the_cases_below_pass_by_default(decided: Callable[[str], Verdict]) -> None:
    assert decided("").passed


@pytest.mark.parametrize(
    ("decided", "option", "failure"),
    [
        (of_training, "--max-eval-loss=0.4", "eval_loss 0.5 (must be <= 0.4)"),
        (of_training, "--max-perplexity=1.6", "perplexity 1.65 (must be <= 1.6)"),
        (of_evaluation, "--min-a-rate=0.9", "a_rate 0.8 (must be >= 0.9)"),
        (of_evaluation, "--max-c-rate=0.01", "c_rate 0.05 (must be <= 0.01)"),
        (of_evaluation, "--min-refusal-rate=1", "refusal_rate 0.95 (must be >= 1)"),
        (of_performance, "--max-p95-latency=4", "p95_latency 4.4 (must be < 4)"),
        (of_performance, "--max-p95-ttft=0.1", "p95_ttft 0.52 (must be < 0.1)"),
        (of_performance, "--min-throughput=5", "throughput 3.6 (must be > 5)"),
        (of_first_performance, "--min-success-rate=1", "success_rate 0.995 (must be >= 1)"),
        (
            of_performance,
            "--latency-regression-factor=1.05",
            "p95_latency vs baseline 4.4 (must be <= 4.2)",
        ),
        (
            of_performance,
            "--throughput-regression-factor=0.95",
            "throughput vs baseline 3.6 (must be >= 3.8)",
        ),
    ],
)
def test_a_threshold_alone_decides_its_gate(
    decided: Callable[[str], Verdict], option: str, failure: str
) -> None:
    assert decided(option).failures == (failure,)


def test_a_load_test_sends_what_its_parameters_say_to_the_slot_that_they_name(
    run: Run, environment: Mapping[str, str], resources: Resources,
    adapter_folders: tuple[Path, ...], tmp_path: Path,
) -> None:  # fmt: skip
    small_data(tmp_path / "bucket")
    data, _ = resources.data_bucket.read("1")
    version = register(resources, adapter_folders[0], "eval-passed", data_digest=data.digest)
    resources.registry.store_verdict(version, passed_verdict("eval_gate", version, None))
    keep(resources, "training_data", data)
    keep(resources, "staged_deployment", version)
    small = ("--max-samples=3", "--max-tokens=2", "--candidate-adapter=another-slot")
    load = ("performance", "--step", "run-load-test", *small, "--mlflow-experiment=another")
    assert "serves nothing as another-slot" in str(run(environment, *load)[0])
    serve(resources, version, "another-slot")
    assert run(environment, *load)[0] == 0
    record = tmp_path / "bucket" / "lora-assets" / "records" / "perf_metrics" / "1.json"
    metrics = PerfMetrics.model_validate_json(record.read_bytes())
    samples = resources.tracking.record(metrics.mlflow_run_id, STORED_SAMPLES, LoadSamples)
    assert len(samples.candidate) == 3
    assert {sample.output_tokens for sample in samples.candidate} <= {1, 2}
    client = mlflow_client(resources.tracking.tracking_uri)
    experiment = client.get_run(metrics.mlflow_run_id).info.experiment_id
    assert client.get_experiment(experiment).name == "another"
    for replica in resources.fleet.discover().members:
        replica.folder.clear_slot("another-slot")
