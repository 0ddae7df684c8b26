"""The images as they were built from their recipes, each in the work that it is made for."""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from lora_assets.records.served import CANDIDATE_SLOT
from lora_assets.serving.vllm_plugin.adapters_folder import contents
from tests.support.cluster import BUCKET, Cluster
from tests.support.images import USER, Image
from tests.support.locks import locked, pinned, plain
from tests.support.remote_dagster import small_data

pytestmark = pytest.mark.e2e

Options = Mapping[str, Mapping[str, str]]
TRAINS = {"torch", "transformers", "peft", "accelerate", "bitsandbytes", "tokenizers"}
CONTENTS = """
import importlib.metadata, json, os, pathlib
print(json.dumps({
    "packages": {d.metadata["Name"]: d.version for d in importlib.metadata.distributions()},
    "user": [os.getuid(), os.getgid()],
    "lent": [str(path) for path in pathlib.Path("/mnt").iterdir()],
    "pip.conf": pathlib.Path("/etc/pip.conf").exists(),
}))
"""
SHORT = (
    *("--num-epochs", "1", "--evaluations", "1", "--learning-rate", "0.01", "--batch-size", "4"),
    *("--gradient-accumulation-steps", "1", "--max-seq-length", "256"),
    *("--max-eval-loss", "100", "--max-perplexity", "1000"),
)


@pytest.fixture(scope="session")
def train(cluster: Cluster) -> Sequence[str]:
    """A command that trains on data version 1, which is in the bucket."""
    small_data(cluster.folder / "s3" / BUCKET)
    return ("lora-assets", "train", "--data-version", "1", *SHORT)


@pytest.fixture(scope="session")
def candidate(training: Image, train: Sequence[str], options: Options) -> None:
    """A model version that a container of the training image trained and registered."""
    training.output(*train, **options)


@pytest.mark.parametrize("name", ["deployment", "training", "trial"])
def test_an_image_has_pinned_packages_and_nothing_of_where_it_was_built(
    request: pytest.FixtureRequest, name: str
) -> None:
    image: Image = request.getfixturevalue(name)
    inside = json.loads(image.output("python", "-c", CONTENTS))
    assert inside["user"] == [USER, USER]
    assert (inside["lent"], inside["pip.conf"]) == ([], False)
    installed = {plain(n): v.partition("+")[0] for n, v in inside["packages"].items()}
    assert installed.pop("lora-assets")
    assert installed == {name: pinned().get(name) for name in installed}
    assert TRAINS & set(installed) == (set() if name == "deployment" else TRAINS)


def test_packages_from_a_folder_are_the_files_of_the_index_but_for_pytorch() -> None:
    packages = Path(os.environ["STORAGE"]).parent / "packages"
    files = [*packages.glob("*.txt")]
    # Docker takes all from the index, and has no such folder.
    assert len(files) == 2 or os.environ["ENGINE"] == "docker"
    for file in files:
        lent, index = locked(file.name, packages), locked(file.name)
        assert {name for name in lent if not lent[name][1] <= index[name][1]} <= {"torch"}


def test_what_the_deployment_image_cannot_do_is_one_line(
    deployment: Image, train: Sequence[str], options: Options
) -> None:
    ended = deployment.run(*train, **options)
    assert ended.returncode == 1
    assert "torch is not installed here. Use the image vllm-training-tools" in ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.usefixtures("candidate")
def test_a_workflow_stages_through_dagster_what_the_training_image_trained(
    deployment: Image, options: Options, dagster_url: str
) -> None:
    """Step and code location are containers of one image; the work is in the second one."""
    environment = {"DAGSTER_URL": dagster_url, "LORA_ASSETS_REQUEST": "deploy-1"}
    for name in ("LORA_ASSETS_STACK", "MLFLOW_TRACKING_URI", "VLLM_URL"):
        environment[name] = options["environment"][name]
    for step in ("load-adapter", "smoke-test", "set-staged-alias"):
        deployment.output("lora-assets", "deploy", f"--step={step}", environment=environment)
    status = json.loads(deployment.output("lora-assets", "status", "--json", **options))
    (replica,) = status["replicas"]
    assert replica["adapters"][CANDIDATE_SLOT] == status["aliases"]["staged"]["digest"]
    assert status["agrees"] is True


def test_the_init_container_restores_what_is_staged(
    deployment: Image, options: Options, tmp_path: Path
) -> None:
    restored = tmp_path / "adapters"
    restored.mkdir()
    restored.chmod(0o777)
    ((adapters, _),) = options["mounts"].items()
    mounts = {adapters: str(restored)}
    deployment.output("lora-assets", "restore", **{**options, "mounts": mounts})
    staged = contents(Path(adapters))
    assert contents(restored)["digests"] == staged["digests"]
    assert contents(restored)["slots"] == staged["slots"] != {}
