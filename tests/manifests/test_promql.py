"""Prometheus itself (promtool) reads the rules and the dashboard."""

import subprocess
from pathlib import Path

import pytest
import yaml

from tests.support.manifests import find
from tests.support.monitoring import alerts, expressions

pytestmark = pytest.mark.e2e


def promtool(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["promtool", *map(str, arguments)], capture_output=True, text=True, check=False
    )


@pytest.fixture
def rules(tmp_path: Path) -> Path:
    """Write the rules as the operator passes them to Prometheus."""
    path = tmp_path / "rules.yaml"
    path.write_text(yaml.safe_dump(find("PrometheusRule", "lora-assets")["spec"]))
    return path


def test_prometheus_takes_the_rules(rules: Path) -> None:
    checked = promtool("check", "rules", rules)
    assert checked.returncode == 0, checked.stderr
    assert f"{len(list(alerts()))} rules found" in checked.stdout


def test_prometheus_takes_every_expression_of_the_dashboard(tmp_path: Path) -> None:
    recorded = [
        {"record": f"dashboard:{number}", "expr": expression}
        for number, expression in enumerate(expressions().values())
    ]
    path = tmp_path / "dashboard.yaml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": recorded}]}))
    checked = promtool("check", "rules", path)
    assert checked.returncode == 0, checked.stderr


STATUS = 'kube_cronjob_status_last_successful_time{namespace="ml-models",cronjob="fleet-status"}'
CREATED = 'kube_cronjob_created{namespace="ml-models",cronjob="fleet-status"}'
READY = 'kube_deployment_status_replicas_available{namespace="ml-models",deployment="vllm"}'
WANTED = 'kube_deployment_spec_replicas{namespace="ml-models",deployment="vllm"}'
E2E = 'vllm:e2e_request_latency_seconds_bucket{job="vllm-service",pod="vllm-0",le="%s"}'
DONE = 'vllm:request_success_total{job="vllm-service",finished_reason="%s"}'
RUN = "dagster-run-0b7d5c3e-7f0e-4f57-9a51-0c3a3b6d1f00"
FAILED = f'kube_job_failed{{namespace="dagster",job_name="{RUN}",condition="true"}}'
MADE = f'kube_job_created{{namespace="dagster",job_name="{RUN}"}}'
AGAIN_FAILED = f'kube_job_failed{{namespace="dagster",job_name="{RUN}-1",condition="true"}}'
AGAIN_MADE = f'kube_job_created{{namespace="dagster",job_name="{RUN}-1"}}'
STEP = 'kube_job_failed{namespace="dagster",job_name="dagster-step-1",condition="true"}'
WAITING = 'vllm:num_requests_waiting{job="vllm-service",pod="vllm-0"}'

CASES: dict[str, tuple[str, dict[str, str], str, bool]] = {
    # Alert, series, at which time, whether it fires.
    "a check that agrees": ("AdaptersStale", {STATUS: "0+60x100", CREATED: "0x100"}, "90m", False),
    "checks that fail since": ("AdaptersStale", {STATUS: "0x100", CREATED: "0x100"}, "31m", True),
    "a check that never worked": ("AdaptersStale", {CREATED: "0x100"}, "31m", True),
    "a check that is new": ("AdaptersStale", {CREATED: "0x100"}, "20m", False),
    "no check": ("AdaptersUnchecked", {"up": "1x100"}, "70m", True),
    "no replica": ("VllmNotServing", {READY: "0x100"}, "5m", True),
    "all replicas": ("VllmReplicaMissing", {READY: "2x100", WANTED: "2x100"}, "40m", False),
    "one of two": ("VllmReplicaMissing", {READY: "1x100", WANTED: "2x100"}, "25m", True),
    "one that starts": ("VllmReplicaMissing", {READY: "1x100", WANTED: "2x100"}, "15m", False),
    "slow answers": (
        "VllmSlow",
        {E2E % "5.0": "0x100", E2E % "10.0": "0+10x100", E2E % "+Inf": "0+10x100"},
        "40m",
        True,
    ),
    "quick answers": (
        "VllmSlow",
        {E2E % "5.0": "0+10x100", E2E % "10.0": "0+10x100", E2E % "+Inf": "0+10x100"},
        "40m",
        False,
    ),
    "errors": ("VllmErrors", {DONE % "error": "0+1x100", DONE % "stop": "0+9x100"}, "40m", True),
    "clients that leave": (
        "VllmErrors",
        {DONE % "error": "0x100", DONE % "abort": "0+1x100", DONE % "stop": "0+9x100"},
        "40m",
        False,
    ),
    "a queue": ("VllmSaturated", {WAITING: "3x100"}, "20m", True),
    "a queue that empties": ("VllmSaturated", {WAITING: "3 0 5 3 0 4 3 3 0 3 3"}, "10m", False),
    "a run that failed": ("RunFailed", {MADE: "0x100", FAILED: "_x9 1x90"}, "20m", True),
    "a run that failed long ago": ("RunFailed", {FAILED: "_x9 1x90"}, "60m", False),
    "a lost worker whose run goes on": (
        "RunFailed",
        {MADE: "0x100", FAILED: "_x9 1x90", AGAIN_MADE: "_x9 600x90"},
        "20m",
        False,
    ),
    "a lost worker whose run fails later": (
        "RunFailed",
        {
            MADE: "0x100",
            FAILED: "_x9 1x90",
            AGAIN_MADE: "_x9 600x90",
            AGAIN_FAILED: "_x59 1x40",
        },
        "70m",
        True,
    ),
    "a step's pod that was lost": ("RunFailed", {STEP: "_x9 1x90"}, "20m", False),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_an_alert_fires_when_it_should(
    case: tuple[str, dict[str, str], str, bool], rules: Path, tmp_path: Path
) -> None:
    alert, series, at, fires = case
    told = {
        "rule_files": [str(rules)],
        "evaluation_interval": "1m",
        "tests": [
            {
                "interval": "1m",
                "input_series": [{"series": s, "values": v} for s, v in series.items()],
                # Which alerts there are, whatever their labels and texts.
                "promql_expr_test": [
                    {
                        "expr": f'count(ALERTS{{alertname="{alert}",alertstate="firing"}})'
                        " or vector(0)",
                        "eval_time": at,
                        "exp_samples": [{"value": 1 if fires else 0}],
                    }
                ],
            }
        ],
    }
    path = tmp_path / "test.yaml"
    path.write_text(yaml.safe_dump(told))
    tested = promtool("test", "rules", path)
    assert tested.returncode == 0, tested.stderr + tested.stdout
