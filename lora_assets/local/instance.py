"""Dagster's storage, as a command opens it in this process."""

import hashlib
import json
import os
import shutil
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory, gettempdir

from dagster import DagsterInstance
from filelock import FileLock
from sqlalchemy.exc import IntegrityError

from lora_assets.assets.graph import data_versions
from lora_assets.errors import LoraAssetsError
from lora_assets.local.dead_processes import fail_runs_of_dead_processes

_DAGSTER_YAML = Path(__file__).parent / "dagster.yaml"


def open_instance(home: Path, *, managed: bool) -> DagsterInstance:
    """Return the instance of the folder `home`, with the runs of dead processes failed.

    A managed folder is created, and gets our dagster.yaml.
    """
    if not managed:
        return _open(home)
    home.mkdir(parents=True, exist_ok=True)
    # Two commands that create SQLite's tables at once fail on each other's.
    with FileLock(home / ".lock"):
        _write_dagster_yaml(home / "dagster.yaml")
        return _open(home)


def add_partitions(instance: DagsterInstance, versions: Sequence[str]) -> None:
    """Make data versions partitions, those that are not yet."""
    try:
        instance.add_dynamic_partitions(str(data_versions.name), versions)
    except IntegrityError:
        # Another command added one of them in the same moment: now it is left out.
        instance.add_dynamic_partitions(str(data_versions.name), versions)


def _open(home: Path) -> DagsterInstance:
    instance = DagsterInstance.from_config(str(home))
    fail_runs_of_dead_processes(instance)
    return instance


def _write_dagster_yaml(path: Path) -> None:
    """Replace the file in one step: another command may be reading it."""
    with TemporaryDirectory(dir=path.parent, prefix=".dagster.yaml.") as aside:
        written = Path(shutil.copy(_DAGSTER_YAML, aside))
        if set("%?") & set(str(path)):
            storage = json.dumps({"sqlite": {"base_dir": str(_linked(path.parent))}})
            written.write_text(f"{written.read_text()}storage: {storage}\n")
        written.replace(path)


def _linked(folder: Path) -> Path:
    """Return a link to a folder whose own path means something else in a URL.

    Dagster writes the path of its databases into one as it is.
    """
    links = Path(gettempdir()) / f"lora-assets-{os.getuid()}"
    links.mkdir(mode=0o700, exist_ok=True)
    if links.lstat().st_uid != os.getuid():
        raise LoraAssetsError(f"{links} belongs to another user", "Set TMPDIR to another folder.")
    link = links / hashlib.sha256(str(folder).encode()).hexdigest()[:16]
    with suppress(FileExistsError):
        link.symlink_to(folder, target_is_directory=True)
    return link
