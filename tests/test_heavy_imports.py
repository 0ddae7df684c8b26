"""Imports that take long: without a look for garbage, and only in the steps that need them."""

import gc
import subprocess
import sys
from contextlib import suppress

import pytest

from lora_assets.heavy_imports import heavy_imports

ONLY_IN_STEPS = {
    "boto3",
    "dagster_aws",
    "dagster_k8s",
    "fastapi",
    "kubernetes",
    "matplotlib",
    "mlflow",
    "numpy",
    "pandas",
    "scipy",
    "sklearn",
    "torch",
    "transformers",
}


def test_garbage_is_looked_for_again_after_the_block_also_when_an_import_fails() -> None:
    with suppress(ImportError), heavy_imports():
        assert not gc.isenabled()
        raise ImportError
    assert gc.isenabled()


@pytest.mark.integration
def test_the_definitions_load_without_what_only_some_steps_need() -> None:
    program = "import sys, lora_assets.definitions; print(*sys.modules)"
    loaded = subprocess.check_output([sys.executable, "-c", program], text=True).split()
    assert "dagster" in loaded
    assert not {module.partition(".")[0] for module in loaded} & ONLY_IN_STEPS
