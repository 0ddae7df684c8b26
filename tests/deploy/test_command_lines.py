"""Every command line of deploy/, argo/ and the pages is one that its program accepts."""

import re
from collections.abc import Sequence
from pathlib import Path

import click
import pytest
from dagster._grpc.client import DagsterGrpcClient

from tests.support.argo_workflows import WORKFLOWS, defaults_of
from tests.support.command_lines import PARSERS, of_pages, of_pods, parse, submitted
from tests.support.dagster_services import PROGRAMS, Part
from tests.support.doubles.dagster_chart import merged, objects
from tests.support.manifests import REPOSITORY, code_location, dagster_values, variables
from tests.support.stack import free_port

IN_PODS, IN_PAGES = tuple(of_pods()), tuple(of_pages())
OF_OTHERS = {"vllm", "until", "python", "/bin/oauth2-proxy"}
"""vLLM's options are parsed by the conformance tests; the chart's own init containers wait;
MLflow's users are made by a script, which tests/deploy/test_mlflow_users.py runs."""


def lines(program: str) -> list[tuple[str, Sequence[str]]]:
    return [(where, words) for where, words in IN_PAGES if words[0] == program]


def test_every_container_runs_a_program_whose_parser_is_here() -> None:
    programs = {words[0] for _, words in IN_PODS if words}
    assert programs - OF_OTHERS == PARSERS.keys()


@pytest.mark.parametrize(
    ("where", "words"),
    [line for line in (*IN_PODS, *IN_PAGES) if line[1] and line[1][0] in PARSERS],
    ids=lambda each: each if isinstance(each, str) else " ".join(each)[:60],
)
def test_a_program_accepts_the_command_line(where: str, words: Sequence[str]) -> None:
    assert parse(words).command is not None, where


def test_the_option_that_no_dagster_has_is_refused() -> None:
    """Before, it kept the code location from starting."""
    words = ["dagster", "api", "grpc", "-p", "3030", "--python-module", "lora_assets.definitions"]
    with pytest.raises(click.NoSuchOption, match="--python-module"):
        parse(words)


@pytest.mark.parametrize(
    ("where", "words"), [line for line in lines("argo") if "submit" in line[1]]
)
def test_a_submitted_workflow_has_the_parameters_that_it_is_given(
    where: str, words: Sequence[str]
) -> None:
    name, given = submitted(words)
    assert given <= defaults_of(WORKFLOWS[name]).keys(), where


def test_make_has_the_targets_of_the_pages() -> None:
    targets = re.findall(r"^([a-z-]+):", (REPOSITORY / "Makefile").read_text(), re.M)
    used = {words[1] for _, words in lines("make")}
    assert used
    assert used <= set(targets)


@pytest.mark.integration
def test_the_code_location_starts_with_the_arguments_of_the_chart(tmp_path: Path) -> None:
    port = free_port()
    values = merged(
        dagster_values(),
        {"dagster-user-deployments": {"deployments": [{**code_location(), "port": port}]}},
    )
    (words,) = (
        made["containers"][0]["words"]
        for made in objects(values)
        if made["name"] == "dagster-dagster-user-deployments-lora-assets"
    )
    given = variables(code_location())
    environment = {name: each["value"] for name, each in given.items() if "value" in each} | {
        "DAGSTER_HOME": str(tmp_path),
        "LORA_ASSETS_HOME": str(tmp_path / "home"),
    }
    (tmp_path / "dagster.yaml").touch()
    program, *arguments = words
    command = [PROGRAMS / program, *arguments]
    location = Part("the location", port, command, tmp_path / "log", environment=environment)
    with location.running():
        client = DagsterGrpcClient(port=port, host="127.0.0.1")
        assert "__repository__" in client.list_repositories()
