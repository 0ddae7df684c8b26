"""The process of one variant, of the base, or of the card's matrix rate.

python -m benchmarks.training.process TASK.json RESULT.json
python -m benchmarks.training.process make SHAPE FOLDER RESULT.json
"""

import json
import sys
import time
from collections.abc import Mapping
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import torch

from benchmarks.training.measured import Measured
from benchmarks.training.task import Task, make_base

MODULES: Mapping[str, str] = {
    "specification": "specification",
    "lora-assets": "engine",
    "lora-assets-24gb": "engine",
    "trl": "trl_peer",
    "trl-checkpointing": "trl_peer",
    "unsloth": "unsloth_peer",
    "unsloth-checkpointing": "unsloth_peer",
}
NEEDS = {"trl_peer": "trl", "unsloth_peer": "unsloth"}


def matrix_rate() -> float:
    """Return the FLOPs per second of ten products of 8192 x 8192 random matrices in bf16.

    Three go before, unmeasured. On a CPU they are 1024 x 1024 in fp32, what is trained in there.
    """
    cuda = torch.cuda.is_available()
    size, dtype, device = (8192, torch.bfloat16, "cuda") if cuda else (1024, torch.float32, "cpu")
    one, other = (torch.randn(size, size, dtype=dtype, device=device) for _ in range(2))
    seconds = 0.0
    for count in (3, 10):
        began = time.perf_counter()
        for _ in range(count):
            torch.matmul(one, other)
        if cuda:
            torch.cuda.synchronize()
        seconds = time.perf_counter() - began
    return float(10 * 2 * size**3 / seconds)


def make(shape: str, base: Path) -> Mapping[str, str | float]:
    """Make the base; return its parameters, the device and its matrix rate."""
    cuda = torch.cuda.is_available()
    return {
        "parameters": make_base(shape, base),
        "device": torch.cuda.get_device_name() if cuda else "CPU",
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "matrix_rate": matrix_rate(),
    }


def main() -> None:
    if sys.argv[1] == "make":
        _, _, shape, base, result = sys.argv
        Path(result).write_text(json.dumps(make(shape, Path(base))))
        return
    task = Task.model_validate_json(Path(sys.argv[1]).read_bytes())
    module = MODULES[task.variant]
    if (needed := NEEDS.get(module)) and find_spec(needed) is None:
        raise SystemExit("not installed")
    if needed == "trl" and not torch.cuda.is_available():
        raise SystemExit("needs CUDA")
    found: Measured = import_module(f"benchmarks.training.{module}").run(task)
    Path(sys.argv[2]).write_text(found.model_dump_json())


if __name__ == "__main__":
    main()
