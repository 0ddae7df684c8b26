"""register: an adapter that was trained elsewhere becomes a candidate, as ours do."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path

import pytest
from mlflow import MlflowClient
from peft import LoraConfig

from lora_assets.embedded.data_set.versions import contents
from lora_assets.embedded.server.options import PACKAGED_BASE_MODEL
from lora_assets.records.model_version import ModelVersion
from lora_assets.serving.adapter_files import CONFIG, WEIGHTS
from lora_assets.serving.vllm_plugin.adapters_folder import digest_folder
from lora_assets.settings import EMBEDDED_BASE_NAME
from lora_assets.stack_resources import Resources
from tests.support.commands import Run
from tests.support.random_adapters import save_adapter
from tests.support.scripts_registry import register_by_script

LOSS = ("--eval-loss", "0.42")
ON_1 = ("--data-version", "1")


@pytest.fixture
def environment(environment: Mapping[str, str], tmp_path: Path) -> Mapping[str, str]:
    return {**environment, "S3_DATA_BUCKET": (tmp_path / "o'brien").as_uri()}


@pytest.fixture
def resources(resources: Resources) -> Resources:
    """With data version 1 in the bucket."""
    few = {split: b"".join(rows.splitlines(True)[:40]) for split, rows in contents(["s3"]).items()}
    resources.data_bucket.add("1", few)
    return resources


@pytest.fixture
def theirs(tmp_path: Path) -> Path:
    """What TRL leaves: beside the adapter a tokenizer, a pickle and a checkpoint."""
    folder = tmp_path / "theirs"
    config = LoraConfig(r=8, lora_alpha=16, target_modules=["q_proj", "v_proj"])
    save_adapter(folder, config, seed=71, std=0.03)
    for name in ("README.md", "tokenizer.json", "training_args.bin", "adapter_model.bin"):
        (folder / name).write_bytes(b"\x80\x04.")
    (folder / "checkpoint-8").mkdir()
    return folder


def state(resources: Resources) -> object:
    client = MlflowClient(resources.tracking.tracking_uri)
    runs = client.search_runs([each.experiment_id for each in client.search_experiments()])
    return [run.info.run_id for run in runs], client.search_model_versions()


def test_a_folder_becomes_a_candidate_as_ours_do_and_a_second_time_there_is_nothing_to_do(
    run: Run, environment: Mapping[str, str], resources: Resources, theirs: Path
) -> None:
    ended, printed = run(environment, "register", str(theirs), *ON_1, *LOSS)
    assert ended == 0
    beside = "README.md, checkpoint-8, tokenizer.json, training_args.bin, adapter_model.bin"
    assert f"left behind: {beside}\n" in printed
    registry = resources.registry
    version = registry.aliases()["candidate"]
    data, _ = resources.data_bucket.read("1")
    assert (version.data_version, version.data_digest) == ("1", data.digest)
    assert registry.tracking.data_source(version.run_id) == data.source
    assert registry.tracking.holds(version.run_id, "adapter", version.digest)
    fetched = registry.download(version, theirs.with_name("fetched"))
    assert (fetched / WEIGHTS).read_bytes() == (theirs / WEIGHTS).read_bytes()
    assert json.loads((fetched / CONFIG).read_text())["base_model_name_or_path"] == "embedded-base"
    verdict = registry.verdicts(version)["quality_gate"]
    measured = {check.name: check.measured for check in verdict.checks}
    assert measured == {"eval_loss": 0.42, "perplexity": pytest.approx(1.522, abs=1e-3)}
    assert verdict.notes == ("losses as given, not measured here",)
    kept = resources.io_manager.store.get("lora-assets/records/gate_result/1.json")
    assert ModelVersion.model_validate_json(kept or b"") == version

    assert version.base == ""
    before = state(resources)
    ended, printed = run(environment, "register", str(theirs), *ON_1)
    assert (ended, printed.splitlines()[-1]) == (0, "register: nothing to do: it is version 1")
    assert state(resources) == before


def test_what_is_in_mlflow_is_registered_by_its_run_or_its_version(
    run: Run, environment: Mapping[str, str], resources: Resources, theirs: Path
) -> None:
    number = register_by_script(resources.registry, theirs, "live", tags={})
    name = resources.registry.model_name
    client = MlflowClient(resources.tracking.tracking_uri)
    their_run = client.get_model_version(name, str(number)).run_id
    source = f"models:/{name}/{number}"
    assert run(environment, "register", source, *ON_1, *LOSS)[0] == 0
    candidate = resources.registry.aliases()["candidate"]
    assert candidate.version == number + 1
    assert resources.registry.others() == {"live": number}
    ended, printed = run(environment, "register", f"runs:/{their_run}/adapter", *ON_1)
    assert (ended, "nothing to do: it is version 2" in printed) == (0, True)
    assert digest_folder(theirs) != candidate.digest
    theirs.with_name("model").mkdir()
    nested = theirs.rename(theirs.with_name("model") / "peft")
    number = register_by_script(resources.registry, nested.parent, tags={})
    ended, printed = run(environment, "register", f"models:/{name}/{number}/peft", *ON_1)
    assert (ended, "nothing to do: it is version 2" in printed) == (0, True)


def test_losses_that_are_not_given_are_measured_here_and_the_adapter_can_be_deployed(
    run: Run, environment: Mapping[str, str], resources: Resources, theirs: Path
) -> None:
    ended, _ = run(environment, "register", str(theirs), *ON_1)
    assert str(ended).startswith("error: quality_gate stopped it: perplexity ")
    assert resources.registry.aliases() == {}
    generous = ("--max-eval-loss", "9", "--max-perplexity", "9999")
    assert run(environment, "register", str(theirs), *ON_1, *generous)[0] == 0
    version = resources.registry.aliases()["candidate"]
    verdict = resources.registry.verdicts(version)["quality_gate"]
    loss = {check.name: check.measured for check in verdict.checks}["eval_loss"]
    assert loss is not None
    assert 0.1 < loss < 1
    assert verdict.notes == ()
    assert run(environment, "deploy")[0] == 0
    assert resources.registry.aliases()["staged"] == version
    (replica,) = resources.fleet.discover().members
    assert version.serving_name in replica.loaded()
    other = Path(shutil.copytree(PACKAGED_BASE_MODEL, theirs.with_name("base_model")))
    config = other / "tokenizer_config.json"
    config.write_text(config.read_text() + " ")
    on_other = {**environment, "BASE_MODEL": str(other), "BASE_MODEL_NAME": EMBEDDED_BASE_NAME}
    assert run(on_other, "register", str(theirs), *ON_1, *generous)[0] == 0
    renewed = resources.registry.aliases()["candidate"]
    assert (renewed.version, renewed.digest) == (2, version.digest)
    assert renewed.base not in ("", version.base)


@pytest.mark.parametrize(
    ("arguments", "cause"),
    [
        (("{folder}", *ON_1, *LOSS, "--perplexity", "1.9"), "--perplexity 1.9 is not that of"),
        (("{folder}", *ON_1, "--perplexity", "1.9"), "--perplexity needs --eval-loss"),
        (("{folder}", *ON_1, "--eval-loss", "nan"), "--eval-loss nan is not possible"),
        (("{folder}", *ON_1, "--quantization", "int8"), "quantization = 'int8' is not possible"),
        (("{folder}", "--data-version", "9", *LOSS), "Data version 9 has no "),
        (("{folder}/..", *ON_1, *LOSS), "There is no adapter in {folder}/..; theirs/ has one"),
        (("nowhere", *ON_1, *LOSS), "There is no folder nowhere"),
        (("runs:/1", *ON_1, *LOSS), "'runs:/1' names no adapter"),
        (("models:/m@live", *ON_1, *LOSS), "'models:/m@live' names no adapter"),
        (("models:/m/7", *ON_1, *LOSS), "(Registered Model with name=m not found)"),
        (("{folder}", *ON_1, *LOSS, "--trained-on", "x"), "trained on {base}, not on x"),
    ],
)
def test_what_cannot_be_registered_is_one_line_and_leaves_nothing(
    run: Run, environment: Mapping[str, str], resources: Resources, theirs: Path,
    arguments: tuple[str, ...], cause: str,
) -> None:  # fmt: skip
    before = state(resources)
    known = {"folder": theirs, "base": PACKAGED_BASE_MODEL}
    ended, _ = run(environment, "register", *(each.format(**known) for each in arguments))
    assert cause.format(**known) in str(ended)
    assert "\n" not in str(ended)
    assert state(resources) == before
