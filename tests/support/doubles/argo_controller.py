"""A double of Argo's controller and executor: it runs a Workflow's steps as local processes.

Like Argo 3.6 to 4.1, it fills in arguments and references (as quoted text in the template's JSON),
runs the groups of `steps` in order and the steps of a group at the same time, skips by `when`,
reads output parameters, retries by `retryStrategy`, stops with SIGTERM, and runs the exit handler
of a stopped workflow too. It has no deadlines and does not wait between attempts: `waits` records
how long Argo would have waited. A pod's volumes are folders here, so paths below a mount are mapped
in variables and outputs.
"""

import json
import os
import re
import signal
import subprocess
import uuid
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import Any, Literal

from tests.support.argo_workflows import Manifest, callee, defaults_of, references, templates_of

Values = Mapping[str, str]
Phase = Literal["Succeeded", "Failed", "Error", "Skipped"]

ONE_ATTEMPT = {"limit": "0", "expression": "asInt(lastRetry.exitCode) == 75"}


@dataclass
class Node:
    """The outcome of one step; `logs` and `exit_codes` have an entry for each attempt."""

    name: str
    phase: Phase = "Succeeded"
    message: str = ""
    outputs: dict[str, str] = field(default_factory=dict)
    exit_codes: list[int] = field(default_factory=list)
    logs: list[str] = field(default_factory=list)
    waits: list[float] = field(default_factory=list)

    def ended(self, phase: Phase, message: str = "") -> "Node":
        self.phase, self.message = phase, message
        return self

    @property
    def log(self) -> str:
        return "".join(self.logs)


@dataclass
class ArgoWorkflow:
    """A Workflow to submit; `library` has the WorkflowTemplates of the namespace by name.

    `environment` is that of the image and the cluster. Its variables win over the manifest's,
    which name services of a cluster that is not there.
    """

    manifest: Manifest
    library: Mapping[str, Manifest]
    environment: Values
    folder: Path
    uid: str = field(default_factory=lambda: str(uuid.uuid4()))
    nodes: dict[str, Node] = field(default_factory=dict)
    _stopped: bool = field(default=False, init=False)
    _exiting: bool = field(default=False, init=False)
    _running: set[subprocess.Popen[str]] = field(default_factory=set, init=False)
    _lock: Lock = field(default_factory=Lock, init=False)

    @property
    def name(self) -> str:
        return f"{self.manifest['spec']['entrypoint']}-x7k2p"

    def submit(self, **parameters: str) -> Node:
        """Act as `argo submit --wait`, with -p for each of `parameters` (`_` stands for `-`)."""
        given = {name.replace("_", "-"): value for name, value in parameters.items()}
        spec, templates = self.manifest["spec"], templates_of(self.manifest)
        arguments = {**defaults_of(self.manifest), **given}
        entry, handler = templates[spec["entrypoint"]], templates[spec["onExit"]]
        ended = self._execute(self.name, {}, entry, self.manifest, arguments)
        self._exiting = True
        status = {"workflow.status": ended.phase}
        self._execute(f"{self.name}.onExit", status, handler, self.manifest, {})
        return ended

    def stop(self) -> None:
        """Act as `argo stop`: send SIGTERM to what runs; start only the exit handler."""
        with self._lock:
            self._stopped = True
            for process in self._running:
                process.send_signal(signal.SIGTERM)

    def node(self, step: str) -> Node:
        """Return the one node of a step of that name, in this workflow or one that it calls."""
        (node,) = (node for name, node in self.nodes.items() if name.endswith(f".{step}"))
        return node

    def _execute(
        self, name: str, local: Values, template: Manifest, manifest: Manifest, arguments: Values
    ) -> Node:
        node = self.nodes.setdefault(name, Node(name))
        known = {
            "workflow.uid": self.uid,
            "workflow.namespace": self.manifest["metadata"]["namespace"],
            "workflow.name": self.name,
            "node.name": name,
            **local,
        }
        inputs: dict[str, str] = {}
        for parameter in template.get("inputs", {}).get("parameters", []):
            value = arguments.get(parameter["name"], parameter.get("value"))
            if value is None:
                return node.ended("Error", f"{parameter['name']} was not supplied")
            inputs[f"inputs.parameters.{parameter['name']}"] = _filled(value, known)
        template = _filled(template, {**known, **inputs})
        if "steps" in template:
            return self._steps(node, template, manifest)
        return self._attempts(node, template)

    def _steps(self, node: Node, template: Manifest, manifest: Manifest) -> Node:
        outputs: dict[str, str] = {}
        for number, group in enumerate(template["steps"]):
            names = [f"{node.name}[{number}].{step['name']}" for step in group]
            steps = [_filled(step, outputs) for step in group]
            with ThreadPoolExecutor() as pool:
                children = list(pool.map(self._step, names, steps, [manifest] * len(group)))
            for step, child in zip(group, children, strict=True):
                prefix = f"steps.{step['name']}.outputs.parameters"
                outputs |= {f"{prefix}.{name}": value for name, value in child.outputs.items()}
            failed = [
                child
                for step, child in zip(group, children, strict=True)
                if child.phase in ("Failed", "Error")
                and not step.get("continueOn", {}).get(child.phase.lower())
            ]
            if failed:
                return node.ended("Failed", f"child '{failed[0].name}' failed")
        for output in template.get("outputs", {}).get("parameters", []):
            value = _filled(output["valueFrom"]["parameter"], outputs)
            if references(value):
                return node.ended("Error", f"{value} is not there")
            node.outputs[output["name"]] = value
        return node.ended("Succeeded")

    def _step(self, name: str, step: Manifest, manifest: Manifest) -> Node:
        node = self.nodes.setdefault(name, Node(name))
        if "when" in step:
            proceed = _holds(step["when"])
            if proceed is None:
                return node.ended("Error", f"Invalid 'when' expression '{step['when']}'")
            if not proceed:
                return node.ended("Skipped")
        template = callee(step, manifest, self.library)
        assert template is not None, f"{name} calls a template that is not there"
        if "templateRef" in step:
            manifest = self.library[step["templateRef"]["name"]]
        arguments = {p["name"]: p["value"] for p in step.get("arguments", {}).get("parameters", [])}
        return self._execute(name, {"steps.name": step["name"]}, template, manifest, arguments)

    def _attempts(self, node: Node, template: Manifest) -> Node:
        unknown = references(template["container"])
        if unknown:
            return node.ended("Error", f"unresolved: {unknown}")
        retry = template.get("retryStrategy", ONE_ATTEMPT)
        worth_another = re.fullmatch(r"asInt\(lastRetry\.exitCode\) == (\d+)", retry["expression"])
        assert worth_another, "an expression that this double can't read"
        for attempt in range(int(retry["limit"]) + 1):
            if attempt:
                backoff = retry["backoff"]
                wait = float(backoff["duration"].removesuffix("s"))
                node.waits.append(wait * int(backoff["factor"]) ** (attempt - 1))
            code = self._pod(node, template)
            if code is None:
                return node.ended("Failed", "Stopped with strategy 'Stop'")
            if code == 0:
                return node.ended("Succeeded")
            node.ended("Failed", f"exit code {code}")
            if code != int(worth_another[1]):
                break
        return node

    def _pod(self, node: Node, template: Manifest) -> int | None:
        """Return one attempt's exit code; None if the workflow was stopped before."""
        container = template["container"]
        pod = self.folder / f"pod-{uuid.uuid4().hex[:8]}"
        mounts = {mount["mountPath"]: pod / mount["name"] for mount in container["volumeMounts"]}
        for mount in mounts.values():
            mount.mkdir(parents=True)
        # Secrets are the cluster's, and so in `environment`.
        plain = [variable for variable in container["env"] if "value" in variable]
        variables = {v["name"]: _mapped(v["value"], mounts) for v in plain}
        with self._lock:
            if self._stopped and not self._exiting:
                return None
            process = subprocess.Popen(
                [*container["command"], *container.get("args", [])],
                env={**variables, **self.environment},
                cwd=pod,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            self._running.add(process)
        log, _ = process.communicate()
        with self._lock:
            self._running.discard(process)
        node.logs.append(log)
        node.exit_codes.append(process.returncode)
        for output in template.get("outputs", {}).get("parameters", []):
            source = output["valueFrom"]
            path = Path(_mapped(source["path"], mounts))
            value = path.read_text() if path.exists() else source["default"]
            node.outputs[output["name"]] = value.removesuffix("\n")
        # What a signal ended has, in a container, 128 and the signal's number.
        code = process.returncode
        return 128 - code if code < 0 else code


def _filled(part: Any, values: Values) -> Any:
    """Replace references as Argo does: quote each value into the template's JSON."""

    def value_of(match: re.Match[str]) -> str:
        value = values.get(match[1].strip())
        return match[0] if value is None else json.dumps(value)[1:-1]

    return json.loads(re.sub(r"\{\{(.*?)\}\}", value_of, json.dumps(part)))


def _holds(condition: str) -> bool | None:
    """Evaluate `a == b` or `a != b`; return None for any other expression."""
    match = re.fullmatch(r"([\w.-]+) (==|!=) ([\w.-]+)", condition)
    return None if match is None else (match[1] == match[3]) == (match[2] == "==")


def _mapped(path: str, mounts: Mapping[str, os.PathLike[str]]) -> str:
    """Return the local folder that stands for a path below a mount."""
    for mount, folder in mounts.items():
        if path == mount or path.startswith(f"{mount}/"):
            return f"{os.fspath(folder)}{path.removeprefix(mount)}"
    return path
