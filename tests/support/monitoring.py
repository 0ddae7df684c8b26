"""The alert rules and the dashboard, read for the tests."""

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from tests.support.manifests import DEPLOY, Object, find

DASHBOARD: Mapping[str, Any] = json.loads((DEPLOY / "monitoring" / "lora-assets.json").read_text())


def alerts() -> Iterator[Object]:
    for group in find("PrometheusRule", "lora-assets")["spec"]["groups"]:
        yield from group["rules"]


def panels() -> Iterator[Object]:
    return (panel for panel in DASHBOARD["panels"] if panel["type"] != "row")


def expressions() -> dict[str, str]:
    """Return every PromQL expression by its purpose, with Grafana's variables filled in."""
    purposes = {alert["alert"]: alert["expr"] for alert in alerts()}
    for panel in panels():
        for target in panel["targets"]:
            text = target["expr"].replace("$__rate_interval", "5m")
            assert "$" not in text, text
            purposes[f"{panel['title']} {target['refId']}"] = text
    return purposes


def metrics(expression: str) -> set[str]:
    """Return the metrics that an expression reads."""
    bare = re.sub(r'"[^"]*"', '""', expression)
    return set(re.findall(r"\b(?:vllm:[a-z0-9_]+|kube_[a-z_]+|up)\b", bare))
