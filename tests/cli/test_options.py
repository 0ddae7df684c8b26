"""Parameters: the specification's tables, the workflows of argo/ and the code agree."""

from collections.abc import Mapping
from typing import Any

import click
import pytest
from pydantic import BaseModel

from lora_assets.assets.adapter import AdapterConfig, QualityConfig
from lora_assets.assets.eval_grades import EvalConfig, EvalGateConfig
from lora_assets.assets.live_deployment import PromoteConfig
from lora_assets.assets.perf_metrics import PerfConfig, PerfGateConfig
from lora_assets.assets.staged_deployment import DeployConfig
from lora_assets.assets.training_data import DataConfig
from lora_assets.cli import stages
from lora_assets.cli.check import check
from lora_assets.cli.stack import OPTIONS
from lora_assets.settings import read_settings
from lora_assets.stack_resources import make_resources
from tests.support.argo_specification import read
from tests.support.argo_workflows import WORKFLOWS, defaults_of

SPECIFIED = {name: tables.parameters for name, tables in read().items()}
SET_BY_THE_PIPELINE = {
    *("adapter-source", "slot-name", "source-alias", "model-name", "mlflow-experiment")
}
SPECIFIED["lora-pipeline"] = {
    parameter: default
    for parameters in SPECIFIED.values()
    for parameter, default in parameters.items()
    if parameter not in SET_BY_THE_PIPELINE
}
MARGINS = {"a-margin": "0.03", "c-margin": "0.02", "refusal-margin": "0.05", "confidence": "0.95"}
DATA = {"max-leak": "", "allow-no-negatives": ""}
ADDED = {
    "train-validate-lora": {"fresh": "", **DATA, "max-left-out": ""},
    "evaluate-lora-adapter": {
        **{"decision-rule": "specification", **MARGINS, **DATA, "fresh": "", "sequential": "true"},
        **{"slices": "question_type", "judge-controls": "30", "also-evaluate": "live"},
    },
    "performance-test-lora": {
        **{"decision-rule": "specification", "confidence": "0.95", "max-blocks": "60"},
        **DATA,
    },
    "promote-lora-adapter": {"allow-older": ""},
}
"""What the specification has not."""
for workflow, added in ADDED.items():
    for name in (workflow, "lora-pipeline"):
        SPECIFIED[name] = {**SPECIFIED[name], **added}

CLUSTER = read_settings({"LORA_ASSETS_STACK": "cluster"})
COMMANDS: dict[str, tuple[click.Command, tuple[type[BaseModel], ...]]] = {
    "train-validate-lora": (stages.train, (AdapterConfig, QualityConfig)),
    "deploy-lora-adapter": (stages.deploy, (DeployConfig,)),
    "evaluate-lora-adapter": (stages.evaluate, (EvalConfig, EvalGateConfig, DataConfig)),
    "performance-test-lora": (stages.performance, (PerfConfig, PerfGateConfig, DataConfig)),
    "promote-lora-adapter": (stages.promote, (PromoteConfig,)),
}
COMMANDS["lora-pipeline"] = (check, tuple(c for _, configs in COMMANDS.values() for c in configs))
"""By workflow: its command, and what configures the command's run."""

STACKS_OWN: Mapping[str, Any] = {
    "candidate_adapter": make_resources(CLUSTER).fleet.candidate_slot,
    "live_adapter": make_resources(CLUSTER).fleet.live_slot,
    "slot_name": make_resources(CLUSTER).fleet.candidate_slot,
    "adapter_source": "alias:candidate",
    **make_resources(CLUSTER).trainer.parameters({}).model_dump(),
}
"""What stands in for a parameter that a run's configuration leaves open (None)."""


def default(option: click.Option, configs: tuple[type[BaseModel], ...]) -> Any:
    """What the command works with in the cluster when the option is not given."""
    name = str(option.name)
    if option.default is not None:
        return option.default
    if name in OPTIONS:
        return getattr(CLUSTER, OPTIONS[name])
    fields = {name: field for config in configs for name, field in config.model_fields.items()}
    given = fields[name].default
    return STACKS_OWN[name] if given is None else given


@pytest.mark.parametrize("workflow", WORKFLOWS)
def test_a_parameter_has_the_specifications_default_in_the_file_and_the_code(workflow: str) -> None:
    assert defaults_of(WORKFLOWS[workflow]) == SPECIFIED[workflow]
    command, configs = COMMANDS[workflow]
    options = {each.opts[0]: each for each in command.params if isinstance(each, click.Option)}
    for parameter, expected in SPECIFIED[workflow].items():
        if parameter == "data-version":
            # By hand the newest: what is right for the first version is wrong for the second.
            continue
        found = default(options[f"--{parameter}"], configs)
        if expected or parameter == "judge-model":
            assert type(found)(expected) == found, parameter


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        *(([], None), (["--fresh"], True), (["--fresh=true"], True), (["--fresh=false"], False)),
        (["--fresh", "--num-epochs", "2"], True),
    ],
)
def test_a_switch_takes_a_value_as_argo_gives_one(typed: list[str], expected: bool | None) -> None:
    assert stages.train.make_context("train", typed).params["fresh"] is expected


@pytest.mark.parametrize("workflow", COMMANDS)
def test_an_option_of_several_stages_says_what_it_is_in_each_of_them(workflow: str) -> None:
    command, configs = COMMANDS[workflow]
    said = {each.name: str(each.help) for each in command.params if isinstance(each, click.Option)}
    for config in configs:
        for name, field in config.model_fields.items():
            # The pipeline stages what it has trained.
            if name in said:
                assert str(field.description) in said[name]
                assert field.default is None or str(field.default) in said[name].split("[")[1]


@pytest.mark.parametrize("workflow", COMMANDS)
def test_the_help_of_an_option_says_what_it_is_and_what_stands_without_it(workflow: str) -> None:
    command, _ = COMMANDS[workflow]
    for option in command.params:
        assert isinstance(option, click.Option)
        if option.name != "step":
            assert option.show_default or "default: " in str(option.help), option.name
            assert not str(option.help).strip().startswith("[default"), option.name
