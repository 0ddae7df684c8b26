"""Where a model version's adapter comes from: its files, and the data that it was trained on."""

import re
import shutil
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from lora_assets.bounded_calls import within
from lora_assets.errors import LoraAssetsError
from lora_assets.records.dataset import require_version_name
from lora_assets.resources.mlflow_client import (
    bytes_in,
    mlflow_client,
    mlflow_errors,
    refuse_elsewhere,
)
from lora_assets.serving.adapter_files import PICKLED, refuse_larger
from lora_assets.serving.vllm_plugin.adapters_folder import FILES

if TYPE_CHECKING:
    from mlflow.entities import Run
    from mlflow.entities.model_registry import ModelVersion as MlflowModelVersion


def fetch_adapter(source: str, tracking_uri: str, to: Path) -> Sequence[str]:
    """Fetch the adapter at `source` into `to`; return the names of the files beside it.

    Refused before it is fetched where the store says that a file is larger than any may be.
    """
    to.mkdir(parents=True, exist_ok=True)
    with mlflow_errors(tracking_uri):
        names, wanted = within(partial(_fetch, source, tracking_uri, to), partial(bytes_in, to))
    if not wanted:
        raise LoraAssetsError(
            f"There is no adapter in {source}", "Register one that has its files."
        )
    return [name for name in names if name not in wanted]


def _fetch(source: str, tracking_uri: str, to: Path) -> tuple[Sequence[str], Sequence[str]]:
    """Return the names of all files, and of those that were fetched."""
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    repository = get_artifact_repository(source, tracking_uri=tracking_uri)
    # That of runs:/ and models:/ stands before the one that has the files.
    refuse_elsewhere(getattr(repository, "repo", repository).artifact_uri)
    # Some stores say no size; `inspect` looks again at what has come.
    sizes = {file.path: file.file_size or 0 for file in repository.list_artifacts()}
    # Fetched as well, pickled weights are refused by name.
    wanted = [name for name in sizes if name in (*FILES, PICKLED)]
    refuse_larger(source, {name: sizes[name] for name in wanted})
    for name in wanted:
        repository.download_artifacts(name, str(to))  # type: ignore[no-untyped-call]
    return list(sizes), wanted


def fetch_source(source: str, tracking_uri: str, to: Path) -> Sequence[str]:
    """Fetch an adapter from a folder, runs:/<run>/<folder> or models:/<name>/<version> into `to`.

    A version's adapter may lie in a folder below it: MLflow's own flavours keep it in `peft/`.

    Return the names of what lies beside its files and is left behind.
    """
    if source.startswith(("runs:", "models:")):
        return [*fetch_adapter(_address(source, tracking_uri), tracking_uri, to), *_pickled(to)]
    folder = Path(source)
    if not folder.is_dir():
        raise LoraAssetsError(
            f"There is no folder {source}",
            "Give one, or runs:/<run>/<folder>, or models:/<name>/<version>.",
        )
    names = sorted(each.name for each in folder.iterdir())
    wanted = [name for name in (*FILES, PICKLED) if (folder / name).is_file()]
    if not wanted:
        inside = sorted(f"{each.parent.name}/" for each in folder.glob(f"*/{FILES[0]}"))
        hint = f"; {', '.join(inside)} has one" if inside else ""
        raise LoraAssetsError(
            f"There is no adapter in {source}{hint}", "Give the folder into which peft saved it."
        )
    refuse_larger(source, {name: (folder / name).stat().st_size for name in wanted})
    to.mkdir(parents=True, exist_ok=True)
    for name in wanted:
        shutil.copyfile(folder / name, to / name)
    return [*(name for name in names if name not in wanted), *_pickled(to)]


def _address(source: str, tracking_uri: str) -> str:
    """Return where MLflow keeps the files of `source`."""
    if re.fullmatch(r"runs:/[^/]+/.+", source):
        return source
    named = re.fullmatch(r"models:/([^/@]+)/([1-9]\d{0,8})((/[^/]+)*)/?", source)
    if named is None:
        raise LoraAssetsError(
            f"{source!r} names no adapter", "Give runs:/<run>/<folder> or models:/<name>/<version>."
        )
    kept = mlflow_client(tracking_uri).get_model_version_download_uri(named[1], named[2])
    return f"{kept.rstrip('/')}{named[3]}"


def _pickled(folder: Path) -> Sequence[str]:
    """Return the pickled weights, where there are others."""
    both = all((folder / name).is_file() for name in (FILES[1], PICKLED))
    return [PICKLED] if both else []


def data_version_of(version: "MlflowModelVersion", run: "Run | None", given: str | None) -> str:
    """Return what a version that others registered was trained on, as its run or else `given` says.

    Refuse a version where neither says it, or where they differ.
    """
    known = version.tags.get("data.version") or (run and run.data.tags.get("data.version"))
    if known and given and known != given:
        raise LoraAssetsError(
            f"Version {version.version} was trained on data version {known}, not {given}",
            "Leave out --data-version.",
        )
    trained_on = known or given
    if not trained_on:
        raise LoraAssetsError(
            f"Neither version {version.version} nor its run has the tag 'data.version'",
            f"Give it with --model-version {version.version} --data-version <data version>.",
        )
    require_version_name(trained_on)
    return str(trained_on)
