"""The data versions: immutable folders `data/processed/<version>/` with three splits."""

import hashlib
from collections.abc import Collection, Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from typing import IO, Any

import dagster as dg
from pydantic import PositiveInt

from lora_assets.bounded_calls import require_at_most
from lora_assets.errors import LoraAssetsError
from lora_assets.gates.data import Splits
from lora_assets.judging.labels import LABELS, parse_labels
from lora_assets.records.dataset import (
    SPLITS,
    SplitName,
    TrainingData,
    is_version_name,
    require_version_name,
    version_order,
)
from lora_assets.records.grades import Label
from lora_assets.records.split_file import MOST_LINE_BYTES, Fault, parse_lines, summary
from lora_assets.resources.object_store import NO_S3, ObjectStore

PROCESSED = "data/processed"
_NO_FOLDER = "/"
"""In the place of a file in it: what lies among the data versions and is not a folder."""


class DataBucket(dg.ConfigurableResource[Any]):
    """Reads and adds data versions. Every method raises LoraAssetsError naming what is wrong."""

    uri: str
    max_split_mib: PositiveInt = 512
    # Dagster's S3Resource. Its type would cost a folder's users the import.
    s3: dg.ResourceDependency[Any] = NO_S3

    @property
    def store(self) -> ObjectStore:
        return ObjectStore(self.uri, self.s3)

    def versions(self) -> tuple[str, ...]:
        """Return the data versions that have all three splits, in their own order."""
        return self.survey()[0]

    def newest(self) -> str:
        """Return the newest data version; raise LoraAssetsError where there is none."""
        versions = self.versions()
        if not versions:
            raise LoraAssetsError(
                f"There is no data version in {self.uri}", "Add one with 'lora-assets data add'."
            )
        return versions[-1]

    def survey(self) -> tuple[tuple[str, ...], Mapping[str, str]]:
        """Return the complete data versions in their own order, and why other names are not.

        Both come from one listing. An object in S3 is there whole or not at all; a folder that
        `data build` makes too. Hidden files are nothing.
        """
        files: dict[str, set[str]] = {}
        for key in self.store.keys(PROCESSED):
            version, slash, name = key.partition("/")
            if version and not version.startswith("."):
                files.setdefault(version, set()).add(name if slash else _NO_FOLDER)
        reasons = {name: _passed_over(name, present) for name, present in files.items()}
        complete = [name for name, reason in reasons.items() if reason is None]
        others = {name: reason for name, reason in sorted(reasons.items()) if reason is not None}
        return tuple(sorted(complete, key=version_order)), others

    def source(self, data_version: str) -> str:
        """Return the URI of a data version's folder."""
        return self.store.address(f"{PROCESSED}/{data_version}")

    def read(
        self, data_version: str, keep: Collection[SplitName] = SPLITS
    ) -> tuple[TrainingData, Splits]:
        """Return what identifies a data version, and the rows of the splits to `keep`.

        It is read line by line, so that what is not kept takes no memory.
        """
        total, splits, source = hashlib.sha256(), Splits(keep), self.source(data_version)
        faults: list[Fault] = []
        for split in sorted(SPLITS):
            with self._open(data_version, split) as (file, length):
                total.update(f"{split}.jsonl\0{length}\0".encode())
                for found in parse_lines(split, _noted(file, total)):
                    if isinstance(found, Fault):
                        faults.append(found)
                    else:
                        splits.add(split, *found)
        if faults:
            faults.sort(key=lambda fault: SPLITS.index(fault.split))
            leaks, _ = splits.repeats()
            raise LoraAssetsError(
                f"{source}/{summary([*faults, *leaks])}",
                "Correct the data and add it as a new data version; one never changes.",
            )
        arrived = max(self.store.changed_at(_key(data_version, split)) for split in SPLITS)
        data = TrainingData(
            data_version=data_version,
            digest=total.hexdigest(),
            source=source,
            splits={name: splits.summary(name) for name in SPLITS},
            arrived=arrived.isoformat(timespec="seconds"),
        )
        return data, splits

    def read_unchanged(
        self, data_version: str, digest: str, source: str, keep: Collection[SplitName] = SPLITS
    ) -> Splits:
        """Return the rows of a data version that was read before; refuse changed bytes.

        They are read where they were then, in the folder `source`, whichever bucket a run is
        given now. This bucket is the second place to look, since buckets move.
        """
        before, folder, rest = source.rpartition(f"/{PROCESSED}/{data_version}")
        here, faults = self.uri.rstrip("/"), []
        for uri in dict.fromkeys((before, here) if folder and not rest else (here,)):
            bucket = DataBucket(uri=uri, max_split_mib=self.max_split_mib, s3=self.s3)
            try:
                return bucket._same(data_version, digest, keep)
            except LoraAssetsError as error:
                faults.append(error)
        raise faults[0]

    def _same(self, data_version: str, digest: str, keep: Collection[SplitName]) -> Splits:
        now, splits = self.read(data_version, keep)
        if now.digest != digest:
            raise LoraAssetsError(
                f"Data version {data_version} has changed in {self.uri}: "
                f"digest {now.digest[:12]}, was {digest[:12]}",
                "A data version is immutable; restore it, or give the new data a new version.",
            )
        return splits

    def labels(self, data: TrainingData) -> Sequence[Label]:
        """Return people's grades of answers to the eval split; none where there is no file.

        It lies beside the splits, and is no part of the data version: people go on grading.
        """
        source = f"{data.source}/{LABELS}"
        content = self.store.get(f"{PROCESSED}/{data.data_version}/{LABELS}")
        return parse_labels(content or b"", data.splits["eval"].rows, source)

    def add(self, data_version: str, contents: Mapping[SplitName, bytes]) -> str:
        """Store a new data version, split by split; return the URI of its folder.

        Adding the same again is fine, and finishes what was cut off: a data version counts once
        all of its splits are there. One that has another content already is left as it is.
        """
        require_version_name(data_version)
        most, store = self.max_split_mib << 20, self.store
        with store.one_writer(PROCESSED):
            there = {split: store.get(_key(data_version, split), most) for split in contents}
            if any(content not in (None, contents[split]) for split, content in there.items()):
                raise LoraAssetsError(
                    f"Data version {data_version} exists in {self.uri} with other content",
                    "Data versions never change: choose another name.",
                )
            for split, content in contents.items():
                if there[split] is None:
                    store.put(_key(data_version, split), content, once=True)
        return self.source(data_version)

    @contextmanager
    def _open(self, data_version: str, split: SplitName) -> Iterator[tuple[IO[bytes], int]]:
        require_version_name(data_version)
        with self.store.open(_key(data_version, split)) as found:
            if found is None:
                raise LoraAssetsError(
                    f"Data version {data_version} has no {self.source(data_version)}/{split}.jsonl",
                    "Put train.jsonl, val.jsonl and eval.jsonl there, or build them with "
                    "'lora-assets data build'.",
                )
            file, most = f"{self.source(data_version)}/{split}.jsonl", self.max_split_mib << 20
            remedy = "Take fewer rows, or raise LORA_ASSETS_MAX_SPLIT_MIB and the steps' memory."
            require_at_most(file, found[1], most, remedy)
            yield found


def _noted(file: IO[bytes], total: "hashlib._Hash") -> Iterator[bytes]:
    """Yield the lines of a file, each taken into its digest; of one that is too long, a part."""
    while line := file.readline(MOST_LINE_BYTES + 1):
        total.update(line)
        yield line


def _key(data_version: str, split: SplitName) -> str:
    return f"{PROCESSED}/{data_version}/{split}.jsonl"


def _passed_over(name: str, files: Set[str]) -> str | None:
    """Return why a name in the bucket is not a complete data version; None where it is one."""
    if files == {_NO_FOLDER}:
        return "is not a folder"
    if not is_version_name(name):
        return "can't be the name of a data version"
    missing = [f"{split}.jsonl" for split in SPLITS if f"{split}.jsonl" not in files]
    return f"lacks {', '.join(missing)}" if missing else None
