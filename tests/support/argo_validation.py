"""Find what Argo's controller refuses in a Workflow, or accepts and fails on later.

Hera's models know the names and types of all fields. The rest is checked here, for the features
that this project uses: `steps` templates, container templates, plain `{{...}}` references.
What every pod must have is tested with the other manifests, in tests/deploy.
"""

import re
from collections.abc import Iterator, Mapping, Sequence

from hera.workflows import models
from pydantic import ValidationError

from tests.support.argo_workflows import Manifest, callee, references, templates_of

RETRY_EXPRESSION = "asInt(lastRetry.exitCode) == 75"
"""EX_TEMPFAIL, a lost connection: all that is worth another attempt."""

EXIT_STEP = "terminate"
"""The container of the exit handler: once a workflow was stopped, Argo tries it once only."""

_SECRET = re.compile(r"secret|token(?!s)|password|api[-_]?key", re.IGNORECASE)


def problems(manifest: Manifest, library: Mapping[str, Manifest]) -> list[str]:
    """Return a line for each fault; `library` has the WorkflowTemplates by name."""
    model = getattr(models, manifest["kind"])
    try:
        model.model_validate(manifest, extra="forbid")
    except ValidationError as error:
        return [f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()]
    return [
        *_of_spec(manifest),
        *(
            f"{template['name']}: {problem}"
            for template in manifest["spec"]["templates"]
            for problem in _of_template(template, manifest, library)
        ),
    ]


def _of_spec(manifest: Manifest) -> Iterator[str]:
    spec = manifest["spec"]
    yield from _doubles("template", spec["templates"])
    yield from _of_parameters(spec["arguments"]["parameters"])
    for bound in ("activeDeadlineSeconds", "ttlStrategy", "podGC", "serviceAccountName"):
        if bound not in spec:
            yield f"spec has no {bound}"
    if spec.get("onExit") not in templates_of(manifest):
        yield "onExit is no template, so that a stop between two attempts leaves a run behind"
    entry = templates_of(manifest).get(spec["entrypoint"])
    if entry is None:
        yield f"entrypoint {spec['entrypoint']} is no template"
    elif entry["inputs"]["parameters"] != spec["arguments"]["parameters"]:
        # Argo ignores an argument that the entrypoint does not take.
        yield "the entrypoint's inputs are not the workflow's arguments"


def _of_template(
    template: Manifest, manifest: Manifest, library: Mapping[str, Manifest]
) -> Iterator[str]:
    inputs = template.get("inputs", {}).get("parameters", [])
    yield from _of_parameters(inputs)
    body = {key: value for key, value in template.items() if key != "inputs"}
    for parameter in inputs:
        if f"inputs.parameters.{parameter['name']}" not in references(body):
            yield f"nothing reads parameter {parameter['name']}"
    scope = {f"inputs.parameters.{parameter['name']}" for parameter in inputs}
    scope |= {"workflow.uid", "workflow.namespace", "workflow.name", "node.name"}
    if template["name"] == manifest["spec"].get("onExit"):
        scope.add("workflow.status")
    if "steps" in template:
        yield from _of_steps(template, manifest, library, scope)
    elif "container" in template:
        yield from _unknown(template, scope | {"steps.name"})
        if template["name"] != EXIT_STEP:
            yield from _of_retries(template)
        elif "retryStrategy" in template:
            yield "retries of the exit handler never come once the workflow was stopped"
        yield from _of_container(template)
    else:
        yield "is neither steps nor a container"


def _of_steps(
    template: Manifest, manifest: Manifest, library: Mapping[str, Manifest], scope: set[str]
) -> Iterator[str]:
    yield from _doubles("step", [step for group in template["steps"] for step in group])
    scope = set(scope)
    for group in template["steps"]:
        produced: set[str] = set()
        for step in group:
            yield from _unknown(step, scope)
            called = callee(step, manifest, library)
            if called is None:
                yield f"step {step['name']} calls a template that is not there"
                continue
            if called["name"] == template["name"]:
                yield f"step {step['name']} calls its own template, without an end"
            yield from _of_arguments(step, called)
            outputs = called.get("outputs", {}).get("parameters", [])
            produced |= {f"steps.{step['name']}.outputs.parameters.{o['name']}" for o in outputs}
        # Steps of one group run at the same time and know nothing of each other.
        scope |= produced
    yield from _unknown(template.get("outputs"), scope)


def _of_arguments(step: Manifest, called: Manifest) -> Iterator[str]:
    given = [parameter["name"] for parameter in step.get("arguments", {}).get("parameters", [])]
    taken = {
        parameter["name"]: parameter for parameter in called.get("inputs", {}).get("parameters", [])
    }
    for name in sorted({name for name in given if given.count(name) > 1}):
        yield f"step {step['name']} gives parameter {name} twice"
    for name in sorted(set(given) - set(taken)):
        yield f"step {step['name']} gives parameter {name}, which {called['name']} does not take"
    for name, parameter in taken.items():
        if name not in given and "value" not in parameter:
            yield f"step {step['name']} lacks parameter {name} of {called['name']}"


def _of_retries(template: Manifest) -> Iterator[str]:
    retry = template.get("retryStrategy", {})
    if retry.get("retryPolicy") != "OnFailure":
        yield "retryPolicy is not OnFailure: a lost pod was told to stop, and so was its run"
    if retry.get("expression") != RETRY_EXPRESSION:
        yield f"retries are not for {RETRY_EXPRESSION} alone"
    if not str(retry.get("limit", "")).isdigit():
        yield "retries have no limit"
    backoff = retry.get("backoff", {})
    if "duration" not in backoff:
        yield "retries don't wait"
    if "maxDuration" in backoff:
        yield "backoff.maxDuration counts from the first attempt's start, so long runs get no retry"


def _of_container(template: Manifest) -> Iterator[str]:
    container = template["container"]
    for field in ("activeDeadlineSeconds", "serviceAccountName"):
        if field not in template:
            yield f"has no {field} of its own, which a templateRef would not bring along"
    user = template.get("securityContext", {}).get("runAsUser")
    if not user:
        # Argo's own containers get the pod's user: their image names none, which is root.
        yield "has no runAsUser for the pod, so that Argo's own containers run as root"
    yield from _of_outputs(template)
    for variable in container.get("env", []):
        if _SECRET.search(variable["name"]) and "value" in variable:
            yield f"variable {variable['name']} has a secret as its plain value"
    program = [*container["command"], *container.get("args", [])]
    if program[:2] == ["sh", "-c"] and "exec lora-assets" not in program[2]:
        yield "the shell stays in front of lora-assets and gets its SIGTERM"
    if references(program[:3]):
        yield "a parameter would be read as shell"


def _of_outputs(template: Manifest) -> Iterator[str]:
    mounts = template["container"].get("volumeMounts", [])
    for output in template.get("outputs", {}).get("parameters", []):
        path = output["valueFrom"]["path"]
        if not any(path.startswith(f"{mount['mountPath']}/") for mount in mounts):
            yield f"output {output['name']} can't be written to {path}"


def _of_parameters(parameters: Sequence[Manifest]) -> Iterator[str]:
    yield from _doubles("parameter", parameters)
    for parameter in parameters:
        if _SECRET.search(parameter["name"]):
            yield f"parameter {parameter['name']} is a secret that anyone could read"


def _unknown(part: object, scope: set[str]) -> Iterator[str]:
    for reference in sorted(references(part) - scope):
        yield f"nothing gives {{{{{reference}}}}}"


def _doubles(kind: str, named: Sequence[Manifest]) -> Iterator[str]:
    names = [thing["name"] for thing in named]
    for name in sorted({name for name in names if names.count(name) > 1}):
        yield f"{kind} {name} is there twice"
