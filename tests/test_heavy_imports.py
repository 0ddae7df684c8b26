"""Imports that take long: without a look for garbage, and only in the steps that need them."""

import gc
import subprocess
import sys
from contextlib import suppress

import pytest

from lora_assets.heavy_imports import heavy_imports

ONLY_IN_STEPS = {
    *("boto3", "dagster_aws", "dagster_k8s", "fastapi", "kubernetes", "matplotlib", "mlflow"),
    *("numpy", "pandas", "scipy", "sklearn", "torch", "transformers"),
}
NOT_TO_FOLLOW = {*ONLY_IN_STEPS, "dagster", "sqlalchemy"}
"""What a command that follows a run elsewhere has no time for."""


def test_garbage_is_looked_for_again_after_the_block_also_when_an_import_fails() -> None:
    with suppress(ImportError), heavy_imports():
        assert not gc.isenabled()
        raise ImportError
    assert gc.isenabled()


@pytest.mark.integration
@pytest.mark.parametrize(
    ("needed", "modules", "spared"),
    [
        ("dagster", "lora_assets.definitions", ONLY_IN_STEPS),
        ("click", "lora_assets.cli.main as it; it.cli(['-h'], '', '', False)", NOT_TO_FOLLOW),
        ("httpx", "lora_assets.cli.stages, lora_assets.cli.terminate", NOT_TO_FOLLOW),
    ],
)
def test_what_is_not_needed_is_not_loaded(needed: str, modules: str, spared: set[str]) -> None:
    program = f"import sys, {modules}; print(*sys.modules)"
    loaded = subprocess.check_output([sys.executable, "-c", program], text=True).split()
    assert needed in loaded
    assert not {module.partition(".")[0] for module in loaded} & spared
