"""The dashboard and the alerts read metrics that exist."""

import re
from itertools import product

import pytest

from lora_assets.embedded.server.metrics import ServerMetrics
from lora_assets.gates.performance import PerfThresholds
from tests.support.manifests import WITH_PODS, find
from tests.support.monitoring import DASHBOARD, alerts, expressions, metrics, panels

KUBE_STATE_METRICS = {
    *("kube_deployment_spec_replicas", "kube_deployment_status_replicas_available"),
    "kube_pod_container_status_restarts_total",
    *("kube_cronjob_created", "kube_cronjob_spec_suspend"),
    "kube_cronjob_status_last_successful_time",
    *("kube_job_created", "kube_job_complete", "kube_job_failed", "kube_job_labels"),
}
"""From the documentation of kube-state-metrics 2.x."""


def vllm_metrics() -> set[str]:
    """Return the embedded server's metrics, which the conformance tests compare with vLLM's."""
    text = ServerMetrics("base", 3).render([], []).decode()
    return set(re.findall(r"^(vllm:[a-z0-9_]+)", text, re.M)) | {
        f"{name}_bucket" for name in re.findall(r"^# TYPE (\S+) histogram", text, re.M)
    }


@pytest.mark.parametrize(("purpose", "expression"), expressions().items())
def test_an_expression_reads_metrics_that_are_there(purpose: str, expression: str) -> None:
    read = metrics(expression)
    assert read, purpose
    assert read <= vllm_metrics() | KUBE_STATE_METRICS | {"up"}


def test_an_expression_names_workloads_that_are_there() -> None:
    names = {(m.kind.lower(), m.name) for m in WITH_PODS}
    for purpose, expression in expressions().items():
        for label, name in re.findall(r'\b(deployment|cronjob)="([^"]*)"', expression):
            assert (label, name) in names, purpose
        for job in re.findall(r'\bjob="([^"]*)"', expression):
            assert find("Service", job), purpose  # Prometheus' job is the Service's name.


def test_alerts_on_speed_begin_where_the_gate_fails() -> None:
    limits = PerfThresholds()
    by_name = {alert["alert"]: alert["expr"] for alert in alerts()}
    assert by_name["VllmSlow"].endswith(f"> {limits.max_p95_latency:g}")
    assert by_name["VllmSlowFirstToken"].endswith(f"> {limits.max_p95_ttft:g}")
    assert by_name["VllmErrors"].endswith(f"> {1 - limits.min_success_rate:.2f}")
    drawn = {panel["title"]: panel["fieldConfig"]["defaults"] for panel in panels()}
    for title, limit in (
        ("Latency (E2E)", limits.max_p95_latency),
        ("Time to first token", limits.max_p95_ttft),
    ):
        assert drawn[title]["thresholds"]["steps"][-1]["value"] == limit


def test_an_alert_has_a_severity_a_summary_and_a_remedy() -> None:
    for alert in alerts():
        assert alert["labels"]["severity"] in ("critical", "warning")
        assert alert["annotations"].keys() == {"summary", "remedy"}


def test_the_dashboard_is_one_that_grafanas_sidecar_loads() -> None:
    identifiers = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(identifiers) == len(set(identifiers))
    (variable,) = DASHBOARD["templating"]["list"]
    for panel in panels():
        assert panel["datasource"]["uid"] == f"${{{variable['name']}}}"
    places = [panel["gridPos"] for panel in DASHBOARD["panels"]]
    assert all(place["x"] + place["w"] <= 24 for place in places)
    cells = [
        cell
        for place in places
        for cell in product(*(range(place[a], place[a] + place[b]) for a, b in ("xw", "yh")))
    ]
    assert len(cells) == len(set(cells))
