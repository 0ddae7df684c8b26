"""What a GPU's libraries raise: memory that ended, or a GPU that no longer works."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from lora_assets.errors import LoraAssetsError

_MEMORY_ENDED = re.compile("out of memory|ALLOC(ATION)?_FAILED")
_OF_A_GPU = re.compile(r"CUDA (driver )?error|cuDNN|Triton Error \[CUDA\]|NCCL error")


def memory_ended(error: RuntimeError) -> bool:
    """Return whether memory ended, whichever of PyTorch, CUDA, cuBLAS, cuDNN or Triton says so.

    After it CUDA works as before: of its errors those that end its use for the whole process,
    such as an illegal access, are others.
    """
    found = _MEMORY_ENDED.search(str(error))
    return isinstance(error, torch.OutOfMemoryError) or found is not None


@contextmanager
def gpu_errors_in_a_line() -> Iterator[None]:
    """Raise LoraAssetsError for what a GPU's libraries raise; let other errors pass."""
    try:
        yield
    except RuntimeError as error:
        lines = str(error).splitlines() or [""]
        if memory_ended(error):
            said = next(filter(_MEMORY_ENDED.search, lines), lines[0])
            raise LoraAssetsError(
                f"The GPU can't hold what training needs beside its passes ({said.rstrip('.')})",
                "Stop what else uses it, train on a smaller base model, or use a larger card.",
            ) from error
        if _OF_A_GPU.match(lines[0]):
            raise LoraAssetsError(
                f"The GPU or one of its libraries failed ({lines[0].rstrip('.')})",
                "Run this again; a training goes on from its last complete checkpoint. If it fails "
                "again, see the driver's messages (dmesg), or use another card.",
            ) from error
        raise
