"""Data versions of the embedded data set, as immutable folders in the data bucket."""

import os
import shutil
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path

from lora_assets.embedded.data_set.questions import make_splits
from lora_assets.errors import LoraAssetsError
from lora_assets.records.dataset import SplitName, require_version_name


def build(data_version: str, services: Sequence[str], bucket: Path, spoiled: bool = False) -> Path:
    """Write `bucket/data/processed/<data_version>/{train,val,eval}.jsonl`; return that folder.

    The bytes depend on the services and the installed botocore alone. The folder appears
    whole or not at all, and never changes: building the same again is fine, building
    something else under a version that exists is refused. `spoiled` writes well-formed
    rows whose answers don't come from their context, for a gate to stop.

    Raise LoraAssetsError for a version that is not a plain name, for services that are
    unknown or too small, for an existing version with other content, and where the bucket
    can't be written.
    """
    require_version_name(data_version)
    files = {f"{split}.jsonl": text for split, text in contents(services, spoiled).items()}
    folder = bucket / "data" / "processed" / data_version
    try:
        if not folder.exists():
            _write(files, folder)
        same = {p.name: p.read_bytes() for p in folder.iterdir()} == files
    except OSError as error:
        raise LoraAssetsError(
            f"Data version {data_version} can't be written: {error}",
            "Make the data bucket writable and give it room.",
        ) from None
    if not same:
        raise LoraAssetsError(
            f"Data version {data_version} exists in {bucket} with other content",
            "Data versions never change: choose another name.",
        )
    return folder


def contents(services: Sequence[str], spoiled: bool = False) -> Mapping[SplitName, bytes]:
    """Return the bytes of each split (JSON Lines), which `build` writes."""
    return {
        split: "".join(f"{row.model_dump_json()}\n" for row in rows).encode()
        for split, rows in make_splits(services, spoiled).items()
    }


def _write(files: Mapping[str, bytes], folder: Path) -> None:
    """Write the files aside and rename them into place as one; the loser of a race leaves."""
    # No data version begins with a dot, so what a killed build leaves here counts for nothing.
    aside = folder.parent / f".{folder.name}.{uuid.uuid4().hex}"
    aside.mkdir(parents=True)
    try:
        for name, content in files.items():
            with (aside / name).open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
        try:
            aside.rename(folder)
        except OSError:
            if not folder.exists():
                raise
    finally:
        shutil.rmtree(aside, ignore_errors=True)
