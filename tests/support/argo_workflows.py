"""The workflows of argo/, read as Argo reads them."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

Manifest = Mapping[str, Any]

ARGO = Path(__file__).parents[2] / "argo"


def load(path: Path) -> dict[str, Any]:
    """Read a manifest and resolve YAML's anchors."""
    # A round through JSON: what two aliases share must not change together.
    loaded: dict[str, Any] = json.loads(json.dumps(yaml.safe_load(path.read_text())))
    return loaded


def references(part: object) -> set[str]:
    """Return the names between double braces anywhere in `part`."""
    return set(re.findall(r"\{\{\s*(.*?)\s*\}\}", json.dumps(part)))


def templates_of(manifest: Manifest) -> Mapping[str, Manifest]:
    """Return the templates of a Workflow or WorkflowTemplate by name."""
    return {template["name"]: template for template in manifest["spec"]["templates"]}


def defaults_of(manifest: Manifest) -> Mapping[str, str]:
    """Return the workflow's parameters with their defaults."""
    return {each["name"]: each["value"] for each in manifest["spec"]["arguments"]["parameters"]}


def callee(step: Manifest, manifest: Manifest, library: Mapping[str, Manifest]) -> Manifest | None:
    """Return the template that a step calls, directly or by reference; None if it is missing."""
    if "template" in step:
        return templates_of(manifest).get(step["template"])
    reference = step["templateRef"]
    if reference["name"] not in library:
        return None
    return templates_of(library[reference["name"]]).get(reference["template"])


def program(container: Manifest) -> list[str]:
    """Return the command that a container ends up running, without the shell in front of it."""
    words = [*container["command"], *container.get("args", [])]
    return words[3:] if words[:2] == ["sh", "-c"] else words


WORKFLOWS = {path.stem: load(path) for path in sorted(ARGO.glob("*.yaml"))}
STAGES = tuple(sorted(WORKFLOWS.keys() - {"lora-pipeline"}))
TEMPLATES: Mapping[str, Manifest] = {
    name: {
        **workflow,
        "kind": "WorkflowTemplate",
        "metadata": {"name": name, "namespace": workflow["metadata"]["namespace"]},
    }
    for name, workflow in WORKFLOWS.items()
}
"""The WorkflowTemplates that `make argo-templates` writes."""
