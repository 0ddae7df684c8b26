"""Tokens per second of QLoRA training: this engine, the specification's settings, TRL, Unsloth.

    python -m benchmarks.training [--profile standard] [--variants lora-assets,trl] [--json]

The base has random weights, on a GPU in Mistral-7B's shape. Every variant is a process of its own
and trains the same rows (median 450 tokens, answers about 60), 16 to an update. Tokens are those
that aren't padding; the rate is that after the third update. The floor is 4 x parameters FLOPs per
token, forward and back through frozen weights, at the rate that the device was measured to multiply
large matrices with. `lora-assets-24gb` has an allocator capped at 24 GiB. Peak memory is the
allocator's (on a CPU the process's). TRL and the 8-bit optimizer need CUDA.

Unsloth wants older packages than this project: `--peers-python` names the interpreter that has TRL
and Unsloth. `--work` keeps the base, which is used again.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch

from benchmarks.training.measured import Measured
from benchmarks.training.process import MODULES, NEEDS
from benchmarks.training.process import __name__ as process
from benchmarks.training.table import Results, print_results
from benchmarks.training.task import ROWS_PER_UPDATE, SHAPES, Task
from lora_assets.records.training import Profile

ROOT = Path(__file__).resolve().parents[2]
ABSENT = ("not installed", "needs CUDA")


def run_process(python: str, folder: Path, arguments: Sequence[str], seconds: float) -> str | None:
    """Run the process of the arguments in `folder`; return why it failed, in a line, or None."""
    folder.mkdir(parents=True, exist_ok=True)
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    offline = {"HF_HUB_OFFLINE": "1", "UNSLOTH_DISABLE_STATISTICS": "1"}
    environment = {**os.environ, **offline, "PYTHONPATH": path}
    log = folder / "log"
    try:
        with log.open("w") as file:
            done = subprocess.run(
                [python, "-m", process, *arguments],
                cwd=folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                timeout=seconds,
            )
    except subprocess.TimeoutExpired:
        return f"not done after {seconds:.0f} s"
    if done.returncode == 0:
        return None
    lines = log.read_text(errors="replace").strip().splitlines()
    if lines and lines[-1] not in ABSENT:
        print(*lines[-25:], sep="\n", file=sys.stderr)
    return lines[-1] if lines else f"exit status {done.returncode}"


def main() -> None:
    cuda = torch.cuda.is_available()
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--profile", choices=("standard", "aggressive"), action="append")
    parser.add_argument("--rows", type=int, default=320)
    parser.add_argument("--variants", default=",".join(MODULES), help="comma-separated")
    parser.add_argument("--shape", choices=SHAPES, default="mistral-7b" if cuda else "small")
    parser.add_argument("--work", type=Path, help="folder for the base (15 GB) and the runs")
    parser.add_argument("--peers-python", default=sys.executable)
    parser.add_argument("--timeout", type=float, default=900, help="seconds of a variant")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    variants = options.variants.split(",")
    if unknown := sorted(set(variants) - set(MODULES)):
        parser.error(f"no variant {', '.join(unknown)}; there are {', '.join(MODULES)}")
    if options.rows < 2 * ROWS_PER_UPDATE:
        parser.error(f"--rows must be at least {2 * ROWS_PER_UPDATE}, two updates")
    with tempfile.TemporaryDirectory() as temporary:
        work: Path = (options.work or Path(temporary)).absolute()
        base, made = work / f"base-{options.shape}", work / "device.json"
        arguments = ("make", options.shape, str(base), str(made))
        if cause := run_process(sys.executable, work, arguments, options.timeout):
            raise SystemExit(f"The base can't be made: {cause}")
        outcomes: dict[Profile, dict[str, Measured | str]] = {}
        for profile in options.profile or ("standard", "aggressive"):
            for variant in variants:
                # A folder of its own: the engine would go on where an earlier run was killed.
                with tempfile.TemporaryDirectory(prefix=f"{variant}-", dir=work) as name:
                    own = Path(name)
                    task = Task(
                        variant=variant, profile=profile, base=base, folder=own, rows=options.rows
                    )
                    given, found = own / "task.json", own / "found.json"
                    given.write_text(task.model_dump_json())
                    is_peer = MODULES[variant] in NEEDS
                    python = options.peers_python if is_peer else sys.executable
                    cause = run_process(python, own, (str(given), str(found)), options.timeout)
                    outcome = cause or Measured.model_validate_json(found.read_bytes())
                outcomes.setdefault(profile, {})[variant] = outcome
                said = outcome if isinstance(outcome, str) else outcome.model_dump_json()
                print(f"{profile} {variant}: {said}", file=sys.stderr, flush=True)
        device = json.loads(made.read_text())
    results = Results(rows=options.rows, shape=options.shape, found=outcomes, **device)
    if options.json:
        print(results.model_dump_json())
    else:
        print_results(results)
    if set(results.failures()) - set(ABSENT):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
