"""Prometheus itself (promtool) reads the rules and the dashboard."""

import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest
import yaml

from tests.support.manifests import DATA, Object, find
from tests.support.monitoring import alerts, expressions

pytestmark = pytest.mark.e2e

CASES = yaml.safe_load((DATA / "alerts.yaml").read_text())


def promtool(folder: Path, command: Sequence[str], document: Object) -> str:
    path = folder / f"{command[0]}.yaml"
    path.write_text(yaml.safe_dump(document))
    ended = subprocess.run(
        ["promtool", *command, str(path)], capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr + ended.stdout
    return ended.stdout


def test_prometheus_takes_the_rules(tmp_path: Path) -> None:
    rules = find("PrometheusRule", "lora-assets")["spec"]
    checked = promtool(tmp_path, ("check", "rules"), rules)
    assert f"{len(list(alerts()))} rules found" in checked


def test_prometheus_takes_every_expression_of_the_dashboard(tmp_path: Path) -> None:
    recorded = [
        {"record": f"dashboard:{number}", "expr": expression}
        for number, expression in enumerate(expressions().values())
    ]
    groups = [{"name": "dashboard", "rules": recorded}]
    promtool(tmp_path, ("check", "rules"), {"groups": groups})


@pytest.mark.parametrize("case", CASES["cases"].values(), ids=CASES["cases"])
def test_an_alert_fires_when_it_should(case: Object, tmp_path: Path) -> None:
    rules = tmp_path / "rules.yaml"
    rules.write_text(yaml.safe_dump(find("PrometheusRule", "lora-assets")["spec"]))
    firing = f'ALERTS{{alertname="{case["alert"]}",alertstate="firing"}}'
    test = {
        "interval": "1m",
        "input_series": [
            {"series": CASES["series"][name], "values": values}
            for name, values in case["given"].items()
        ],
        # Whether there are any, whatever their labels and texts.
        "promql_expr_test": [
            {
                "expr": f"count({firing}) or vector(0)",
                "eval_time": case["at"],
                "exp_samples": [{"value": int(case["fires"])}],
            }
        ],
    }
    tests = {"rule_files": [str(rules)], "evaluation_interval": "1m", "tests": [test]}
    promtool(tmp_path, ("test", "rules"), tests)
