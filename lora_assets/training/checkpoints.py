"""A run's checkpoints, of which only complete ones count, and the adapter from the best."""

import errno
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from lora_assets.errors import LoraAssetsError
from lora_assets.serving.adapter_files import CONFIG, WEIGHTS
from lora_assets.serving.vllm_plugin.adapters_folder import digest_folder

PREFIX = "checkpoint-"
FULL = 1 << 20
"""A disk with fewer free bytes than this counts as full."""


@contextmanager
def disk_full_as_error(work: Path) -> Iterator[None]:
    """Raise LoraAssetsError for whatever the libraries raise because the disk is full."""
    try:
        yield
    except (OSError, RuntimeError, SafetensorError) as error:
        full = isinstance(error, OSError) and error.errno == errno.ENOSPC
        if not full and shutil.disk_usage(work).free >= FULL:
            raise
        raise LoraAssetsError(
            f"The disk is full and the training in {work} can't be saved",
            "Free some space and run it again; it goes on from its last complete checkpoint.",
        ) from error


def folder(work: Path, step: int) -> Path:
    """Return the folder in which the Trainer saves the checkpoint of `step`."""
    return work / f"{PREFIX}{step}"


def _marker(checkpoint: Path) -> Path:
    return checkpoint.with_name(f"{checkpoint.name}.sha256")


def seal(checkpoint: Path) -> None:
    """Mark a checkpoint as complete by writing its digest beside it."""
    _marker(checkpoint).write_text(digest_folder(checkpoint))


def newest_complete(work: Path) -> Path | None:
    """Return the newest complete checkpoint; remove half-written or damaged ones."""
    newest = None
    for checkpoint in _all(work):
        marker = _marker(checkpoint)
        if marker.is_file() and marker.read_text() == digest_folder(checkpoint):
            newest = checkpoint
        else:
            _remove(checkpoint)
    return newest


def keep_only(work: Path, steps: set[int]) -> None:
    """Remove the checkpoints of all other steps."""
    for checkpoint in _all(work):
        if _step(checkpoint) not in steps:
            _remove(checkpoint)


def publish(checkpoint: Path, output: Path, base_model_name: str) -> None:
    """Make the adapter folder `output` from a checkpoint: configuration and weights, no more.

    The configuration names `base_model_name` instead of a path, and is written so that the
    same adapter always has the same bytes. `output` appears whole or not at all, and replaces
    an adapter that was there.
    """
    aside = output.with_name(f".{output.name}.new")
    replaced = output.with_name(f".{output.name}.old")
    for leftover in (aside, replaced):
        shutil.rmtree(leftover, ignore_errors=True)
    aside.mkdir(parents=True)
    config = json.loads((checkpoint / CONFIG).read_bytes())
    config["base_model_name_or_path"] = base_model_name
    # peft keeps the targets as a set, whose order differs from process to process.
    config["target_modules"] = sorted(config["target_modules"])
    (aside / CONFIG).write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
    shutil.copyfile(checkpoint / WEIGHTS, aside / WEIGHTS)
    for path in aside.iterdir():
        with path.open("rb") as file:
            os.fsync(file.fileno())
    if output.exists():
        output.rename(replaced)
    aside.rename(output)
    shutil.rmtree(replaced, ignore_errors=True)


def _all(work: Path) -> list[Path]:
    return sorted((p for p in work.glob(f"{PREFIX}*") if p.is_dir()), key=_step)


def _step(checkpoint: Path) -> int:
    return int(checkpoint.name.removeprefix(PREFIX))


def _remove(checkpoint: Path) -> None:
    _marker(checkpoint).unlink(missing_ok=True)
    shutil.rmtree(checkpoint)
