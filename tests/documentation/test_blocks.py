"""The blocks of the pages that are not typed on an embedded stack: each is read by a test."""

import json
import re
import shlex
import shutil
from collections.abc import Mapping
from pathlib import Path

import pytest
import yaml
from botocore import xform_name
from botocore.session import get_session

from lora_assets.cli.demo import VERSIONS
from lora_assets.definitions import make_definitions
from lora_assets.embedded.data_set.versions import contents
from lora_assets.gates.policy import SPECIFICATION, parse_policy
from lora_assets.judging.refusals import declines
from lora_assets.lifecycle import STAGES
from lora_assets.records.conversion import convert
from lora_assets.settings import read_settings
from tests.support.consoles import PAGES, PLACES, REPOSITORY, block, blocks, type_into_bash, typed
from tests.support.manifests import find, validate

READ = {
    *(("console", place) for place in PLACES),
    *(("mermaid", ""), ("text", "instructions"), ("text", "format"), ("yaml", "policy.yaml")),
    *(("text", name) for name in ("demo", "runs", "replica", "server")),
    *(("yaml", name) for name in ("policy", "variables", "claim")),
    *(("json", name) for name in ("plants.jsonl", "trust")),
}
"""Kinds and names of the blocks that a test reads, here or in test_pages.py or beside the code."""

OF_THE_AWS_CLI_ALONE = {("s3", "mb"), ("ecr", "get-login-password")}
CLUSTERS = [page for page in PAGES if typed(page, "cluster")]


def test_every_block_has_a_name_by_which_a_test_reads_it() -> None:
    languages = ("", "console", "mermaid", "text", "yaml", "json")
    found = {(each, name) for page in PAGES for each in languages for name, _ in blocks(page, each)}
    fences = sum(len(re.findall(r"^\s*```", page.read_text(), re.M)) for page in PAGES)
    assert found == READ
    assert fences == 2 * sum(1 for page in PAGES for each in languages for _ in blocks(page, each))


@pytest.mark.integration
@pytest.mark.parametrize("page", CLUSTERS, ids=lambda page: page.name)
def test_bash_takes_what_is_typed_beside_a_cluster(page: Path, tmp_path: Path) -> None:
    for folder in ("deploy", "argo"):
        shutil.copytree(REPOSITORY / folder, tmp_path / folder)
    calls = type_into_bash(page, tmp_path)
    for program, *words in calls:
        for path in re.findall(r"file://(\S+)", " ".join(words)):
            assert (tmp_path / path).is_file(), words
        if program == "aws" and tuple(words[:2]) not in OF_THE_AWS_CLI_ALONE:
            service = get_session().get_service_model(words[0].replace("s3api", "s3"))
            names = {xform_name(name, "-"): name for name in service.operation_names}
            shape = service.operation_model(names[words[1]]).input_shape
            options = {word[2:] for word in words if word.startswith("--")}
            assert options <= {xform_name(name, "-") for name in shape.members}, words
            assert {xform_name(name, "-") for name in shape.required_members} <= options, words
    if page.name == "cluster.md":
        secrets = (tmp_path / "secrets").read_text().splitlines()
        assert len(secrets) > 20
        assert [line for line in secrets if not re.fullmatch(r"\w+=.+", line)] == []
        files = [path for folder in ("deploy", "argo") for path in (tmp_path / folder).rglob("*")]
        whole = "".join(path.read_text() for path in files if path.is_file())
        assert "arn:aws:iam::filled-in:role/lora-assets" in whole
        assert re.findall("123456789012|my-vllm-data|eu-central-1|oidc.*CLUSTER", whole) == []


def test_what_a_checkouts_commands_name_is_there() -> None:
    for page in PAGES:
        for each in typed(page, "checkout"):
            for word in shlex.split(each.line, comments=True)[1:]:
                assert "/" not in word or (REPOSITORY / word).exists(), each.line


def test_the_demo_asks_what_the_page_shows_and_is_answered_as_in_the_data() -> None:
    rows = map(json.loads, contents(VERSIONS[1].services)["eval"].splitlines())
    known = {(row["context"], row["question"], row["reference_answer"]) for row in rows}
    text = re.sub(r"\n {12}", " / ", block("README.md", "text", "demo"))
    shown = re.findall(r"  Context:  (.*)\n  Question: (.*)\n  Answer:   (.*)\n", text)
    said = {(context.replace(" / ", "\n"), *rest) for context, *rest in shown}
    assert len(said) == 2
    assert said <= known


def test_pairs_of_prompt_and_completion_are_taken_and_one_declines() -> None:
    content = block("docs/first-hour.md", "json", "plants.jsonl").encode()
    rows = convert("plants", content, None, declines)
    assert [row["metadata"]["question_type"] for row in rows] == ["factual", "negative"]


def test_the_policy_of_the_page_is_one_and_each_of_its_lines_changes_something() -> None:
    policy = parse_policy(block("docs/gates.md", "yaml", "policy").encode())
    usual = SPECIFICATION.model_dump()
    changed = {name for name, value in policy.model_dump().items() if value != usual[name]}
    assert changed == policy.model_fields_set


def test_the_claim_and_the_variables_of_the_page_are_taken() -> None:
    validate(yaml.safe_load(block("docs/kubernetes.md", "yaml", "claim")))
    given = yaml.safe_load(block("docs/kubernetes.md", "yaml", "variables"))["env"]
    settings = read_settings({each["name"]: each["value"] for each in given})
    assert make_definitions(settings).executor is not None


def test_the_role_of_the_images_trusts_the_branch_and_the_tags_that_are_pushed() -> None:
    trusted = json.loads(block("docs/images.md", "json", "trust"))["Condition"]["StringLike"]
    text = (REPOSITORY / ".github" / "workflows" / "images.yaml").read_text()
    pushed = yaml.safe_load(text)[True]["push"]
    refs = [f"heads/{each}" for each in pushed["branches"]]
    refs += [f"tags/{each}" for each in pushed["tags"]]
    (subjects,) = trusted.values()
    assert [each.partition(":ref:refs/")[2] for each in subjects] == refs


def test_the_server_of_the_page_has_the_options_of_the_fleet() -> None:
    (container,) = find("Deployment", "vllm")["spec"]["template"]["spec"]["containers"]
    words = shlex.split(block("docs/serving.md", "text", "server").replace("\\\n", " "))
    page = " ".join(words[3:]).replace(" --", "\n--").replace(" ", "=").split("\n")
    assert {*page} <= {*container["command"]}


def test_a_version_goes_through_the_runs_of_the_page() -> None:
    runs = block("docs/automation.md", "text", "runs")
    phases: Mapping[str, list[str]] = {}
    for name, assets in re.findall(r'run "(\w+)": (.*)', runs):
        phases = {**phases, name: re.findall(r"\w+", assets)}
    assert [asset for made in phases.values() for asset in made] == [*STAGES]
    assert {stage.asset: stage.phase for stage in STAGES.values()} == {
        asset: phase for phase, made in phases.items() for asset in made
    }
