"""Results kept as they come, so that a killed run goes on where it was."""

import asyncio
import hashlib
import json
import operator
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Generic, Self, TypeVar

from lora_assets.errors import LoraAssetsError
from lora_assets.records import Record

Kept = TypeVar("Kept", bound=Record)


def key_of(*parts: object) -> str:
    """Return a key that names one request by its content (sha256 over JSON, hexadecimal).

    A journal that was kept for another model, prompt or answer thus never matches.
    """
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


@dataclass
class Reuse(Generic[Kept]):
    """What is done with what was kept before, and what became of that.

    `fresh` takes none of it. Of a whole set `proofs` are asked for again, and unless all are
    `alike` none is taken. `by` names the server: only what it said itself is taken.
    """

    fresh: bool = False
    proofs: int = 0
    by: str = ""
    alike: Callable[[Kept, Kept], bool] = operator.eq
    dropped: bool = False
    _moments: Counter[str] = field(default_factory=Counter)

    async def proved(
        self, journal: "Journal[Kept]", keys: Sequence[str], ask: Callable[[int], Awaitable[Kept]]
    ) -> bool:
        """Return whether what is kept of a whole set is, in samples, what is said today."""
        whole = [kept for key in keys if (kept := journal.get(key)) is not None]
        if not self.proofs or len(whole) < len(keys):
            return True
        sample = range(0, len(keys), max(1, len(keys) // self.proofs))[: self.proofs]
        for row, now in zip(sample, await asyncio.gather(*map(ask, sample)), strict=True):
            self.dropped |= not self.alike(whole[row], now)
        return not self.dropped

    def count(self, journal: "Journal[Kept]", key: str) -> None:
        """Note that a record was used, and whether it is from before."""
        if (moment := journal.moment(key)) is not None:
            self._moments[moment] += 1

    def said(self, what: str, total: int) -> tuple[str, ...]:
        """Return in words what was taken from before, or why nothing was; nothing if neither."""
        if self.dropped:
            return (f"{what}: what was kept is no longer what is said today, so it was dropped",)
        if not self._moments:
            return ()
        moments = sorted(self._moments)
        times = moments[0] if len(moments) == 1 else f"{moments[0]} to {moments[-1]}"
        return (
            f"{what}: {self._moments.total()} of {total} kept from {times} "
            f"(server {self.by}); --fresh asks anew",
        )


class Journal(Generic[Kept]):
    """A file of JSON lines `{"key": ..., "record": {...}}`, appended to and read back.

    With `by`, the name of a server, each line also says `at` which moment it was made, and by
    which server; lines by another one are passed over.

    A last line without its newline was cut off by a kill: it is dropped and the rest kept.
    Anything else that can't be read raises LoraAssetsError naming the line, as do a file that
    can't be opened and a disk that is full. For one process at a time.
    """

    def __init__(self, path: Path, record: type[Kept], by: str = "") -> None:
        self._path = path
        self._by = by
        self._kept: dict[str, Kept] = {}
        self._moments: dict[str, str] = {}
        with self._os_errors_named():
            path.parent.mkdir(parents=True, exist_ok=True)
            content = path.read_bytes() if path.exists() else b""
            whole = content[: content.rfind(b"\n") + 1]
            for number, line in enumerate(whole.splitlines(), start=1):
                self._read(number, line, record)
            # Unbuffered: a line is in the kernel's hands when add() returns, and a full disk
            # fails there and not in a later flush.
            self._file = path.open("ab", buffering=0)
            self._file.truncate(len(whole))

    def _read(self, number: int, line: bytes, record: type[Kept]) -> None:
        try:
            entry = json.loads(line)
            kept = record.model_validate(entry["record"])
            if entry.get("by", "") == self._by:
                self._kept[entry["key"]] = kept
                self._moments[entry["key"]] = str(entry.get("at", ""))
        except (ValueError, KeyError, TypeError):  # pydantic's ValidationError is a ValueError
            raise LoraAssetsError(
                f"Line {number} of the journal {self._path} is damaged",
                "Delete the file to start this step from its beginning.",
            ) from None

    @contextmanager
    def _os_errors_named(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise LoraAssetsError(
                f"The journal {self._path} can't be kept: {error.strerror}",
                "Make room on the disk or check the folder's permissions, then run again.",
            ) from None

    def get(self, key: str) -> Kept | None:
        """Return the record that was kept under the key."""
        return self._kept.get(key)

    def moment(self, key: str) -> str | None:
        """Return when a record of before was made; None for a new one."""
        return self._moments.get(key)

    def forget(self) -> None:
        """Take nothing that was kept before. The file is left as it is: the last record counts."""
        self._kept.clear()
        self._moments.clear()

    def add(self, key: str, record: Kept) -> None:
        """Keep a record; it is on file when this returns."""
        entry = {"key": key, "record": record.model_dump(mode="json")}
        if self._by:
            entry |= {"at": datetime.now(UTC).isoformat(timespec="seconds"), "by": self._by}
        line = json.dumps(entry).encode() + b"\n"
        self._moments.pop(key, None)
        with self._os_errors_named():
            if (written := self._file.write(line)) < len(line):
                self._file.write(line[written:])
        self._kept[key] = record

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
