"""Both images as they were built from their recipes, each in the work that it is made for."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from lora_assets.datasets.versions import build
from lora_assets.engines.adapters_folder import contents
from lora_assets.resources.fleet import CANDIDATE_SLOT
from tests.conftest import free_port
from tests.images.conftest import USER, Image, Neighbours

PINNED = Path(__file__).parents[2] / "constraints.txt"
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
    *("--num-epochs", "1", "--evaluations", "2", "--learning-rate", "0.01"),
    *("--max-eval-loss", "100", "--max-perplexity", "1000"),
)


def _plain(line: str) -> str:
    """A distribution's name, or a pin of one, as the index spells it."""
    name, equals, version = line.partition("==")
    return re.sub(r"[-_.]+", "-", name).lower() + equals + version


@pytest.fixture(scope="session")
def data_version(neighbours: Neighbours) -> str:
    build("1", ["sns"], neighbours.bucket)
    return "1"


@pytest.fixture(scope="session")
def candidate(training: Image, neighbours: Neighbours, data_version: str) -> str:
    """A model version that a container of the training image trained and registered."""
    command = ("lora-assets", "train", "--data-version", data_version, *SHORT)
    ended = training.run(*command, **neighbours.options)
    assert ended.returncode == 0, ended.stderr
    return data_version


@pytest.mark.parametrize("name", ["deployment", "training"])
def test_an_image_has_pinned_packages_and_nothing_of_where_it_was_built(
    request: pytest.FixtureRequest, name: str
) -> None:
    image: Image = request.getfixturevalue(name)
    ended = image.run("python", "-c", CONTENTS)
    assert ended.returncode == 0, ended.stderr
    found = json.loads(ended.stdout)
    assert found["user"] == [USER, USER]
    assert (found["lent"], found["pip.conf"]) == ([], False)
    lines = PINNED.read_text().splitlines()
    pinned = dict(_plain(line).split("==") for line in lines if not line.startswith("#"))
    installed = {_plain(n): v.partition("+")[0] for n, v in found["packages"].items()}
    assert installed.pop("lora-assets")
    assert installed == {name: pinned.get(name) for name in installed}
    assert TRAINS & set(installed) == (TRAINS if name == "training" else set())


def test_what_the_deployment_image_cannot_do_is_one_line(
    deployment: Image, neighbours: Neighbours, data_version: str
) -> None:
    command = ("lora-assets", "train", "--data-version", data_version, *SHORT)
    ended = deployment.run(*command, **neighbours.options)
    assert ended.returncode == 1
    assert "torch is not installed here. Use the image vllm-training-tools" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_what_the_training_image_trained_the_deployment_image_deploys_shows_and_restores(
    deployment: Image, neighbours: Neighbours, candidate: str, tmp_path: Path
) -> None:
    ended = deployment.run("lora-assets", "deploy", **neighbours.options)
    assert ended.returncode == 0, ended.stderr
    assert f"deploy: data version {candidate} done" in ended.stderr

    ended = deployment.run("lora-assets", "status", "--json", **neighbours.options)
    assert ended.returncode == 0, ended.stderr
    status = json.loads(ended.stdout)
    digest = status["aliases"]["staged"]["digest"]
    (replica,) = status["replicas"]
    assert replica["adapters"][CANDIDATE_SLOT] == digest
    assert status["agrees"] is True

    restored = tmp_path / "adapters"
    restored.mkdir()
    restored.chmod(0o777)
    options = {**neighbours.options, "mounts": {"/mnt/adapters": str(restored)}}
    ended = deployment.run("lora-assets", "restore", **options)
    assert ended.returncode == 0, ended.stderr
    assert contents(restored)["digests"] == {digest: digest}


def test_the_deployment_image_serves_the_code_location(
    deployment: Image, neighbours: Neighbours
) -> None:
    port = free_port()
    where = ("--host", "127.0.0.1", "--port", str(port))
    command = ("dagster", "api", "grpc", "-m", "lora_assets.definitions", *where)
    asked = (sys.executable, "-m", "dagster", "api", "grpc-health-check", *where)
    with deployment.running(*command, **neighbours.options) as container:
        while subprocess.run(asked, capture_output=True, check=False).returncode != 0:
            assert container.poll() is None, "the code location ended before it was healthy"
        listed = [sys.executable, "-m", "dagster", "job", "list"]
        listed += ["--grpc-host", "127.0.0.1", "--grpc-port", str(port)]
        jobs = subprocess.run(listed, capture_output=True, text=True, check=True).stdout
    assert {"Job: lifecycle", "Job: train", "Job: promote"} <= set(jobs.splitlines())
