"""Importing what makes objects by the hundred thousand."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def heavy_imports() -> Iterator[None]:
    """Look for no garbage among the objects that imports in this block make, nor later among them.

    They live as long as the process, and looking through them takes a third of an import's time.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
