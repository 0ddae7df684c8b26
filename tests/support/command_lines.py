"""Command lines of the manifests and the documentation, and the parsers of their programs."""

import re
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import click
from dagster._cli import create_dagster_cli
from dagster._daemon.cli import create_dagster_daemon_cli
from dagster_webserver.cli import create_dagster_webserver_cli
from mlflow.cli import cli as mlflow_cli

from lora_assets.cli.main import cli as lora_assets_cli
from tests.support.argo_workflows import ARGO, WORKFLOWS, defaults_of, program
from tests.support.consoles import PAGES, PLACES, typed
from tests.support.doubles.dagster_chart import objects
from tests.support.manifests import PODS, REPOSITORY, dagster_values

PARSERS: Mapping[str, Callable[[], click.Command]] = {
    "lora-assets": lambda: lora_assets_cli,
    "dagster": create_dagster_cli,
    "dagster-daemon": create_dagster_daemon_cli,
    "dagster-webserver": create_dagster_webserver_cli,
    "mlflow": lambda: mlflow_cli,
}


def parse(words: Sequence[str]) -> click.Context:
    """Parse a command line by its own program, without running it."""
    name, *rest = words
    command = PARSERS[name]()
    while isinstance(command, click.Group):
        name, *rest = rest
        found = command.get_command(click.Context(command), name)
        if found is None:
            raise click.UsageError(f"{words[0]} has no command {name}")
        command = found
    return command.make_context(name, rest)


def of_pods() -> Iterator[tuple[str, Sequence[str]]]:
    """Yield the command of every container: deploy/'s, argo/'s, and those of Dagster's chart.

    An Argo parameter has its default; the shell in front of a step drops an empty one.
    """
    for pod in PODS:
        for container in pod.containers:
            words = program(container)
            if pod.kind == "Workflow":
                words = [each for word in words if (each := _filled(pod.where, word))[-1] != "="]
            yield str(pod), words
    for made in objects(dagster_values()):
        for container in made.get("containers", ()):
            words = container["words"]
            words = shlex.split(words[2]) if words[1:2] == ["-c"] else words
            yield made["name"], [_mounted(word) for word in words]


def of_pages() -> Iterator[tuple[str, Sequence[str]]]:
    """Yield every command of a console block, and every quoted one that has options."""
    for page in PAGES:
        lines = [each.line for place in PLACES for each in typed(page, place)]
        sentences = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.S | re.M)
        quoted = re.findall(r"`([a-z][a-z-]* [^`]* -[^`]*)`", sentences)
        for line in (*lines, *quoted):
            yield page.name, _words(line)
    for path in ARGO.glob("*.yaml"):
        for line in re.findall(r"^#   (argo submit .*)$", path.read_text(), re.M):
            yield path.name, _words(line)


def submitted(words: Sequence[str]) -> tuple[str, set[str]]:
    """Return the workflow that an `argo submit` line names, and the parameters that it gives."""
    given = {words[i + 1].partition("=")[0] for i, word in enumerate(words) if word == "-p"}
    (name,) = {Path(word).stem for word in words if word.endswith(".yaml") or "template/" in word}
    return name, given


def _filled(where: str, word: str) -> str:
    defaults = defaults_of(WORKFLOWS[Path(where).stem])

    def value(match: re.Match[str]) -> str:
        kind, _, name = match[1].rpartition(".")
        return defaults[name] if kind == "inputs.parameters" else _step_of(where)

    return re.sub(r"\{\{(.*?)\}\}", value, word)


def _mounted(word: str) -> str:
    """The chart mounts its workspace file; ours stands in for it."""
    mounted = word.startswith("/dagster-workspace/")
    return str(REPOSITORY / "workspace.yaml") if mounted else word


def _step_of(where: str) -> str:
    name = Path(where).stem
    first: str = WORKFLOWS[name]["spec"]["templates"][0]["steps"][0][0]["name"]
    return first


def _words(line: str) -> Sequence[str]:
    """Split a line as a shell does, up to a pipe; an ellipsis stands for more options."""
    words = shlex.split(line, comments=True)
    end = next((i for i, word in enumerate(words) if word in ("|", "&", "…", "&&")), len(words))
    return words[:end]
