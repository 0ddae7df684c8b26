"""Imports without a look for garbage, and nothing else without it."""

import gc
from contextlib import suppress

from lora_assets.heavy_imports import heavy_imports


def test_garbage_is_looked_for_again_after_the_block_also_when_an_import_fails() -> None:
    with suppress(ImportError), heavy_imports():
        assert not gc.isenabled()
        raise ImportError
    assert gc.isenabled()
