"""Results kept as they come, so that a killed run goes on where it was."""

import hashlib
import json
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Generic, Self, TypeVar

from lora_assets.errors import LoraAssetsError
from lora_assets.records import Record
from lora_assets.serving.workers import work_through

Kept = TypeVar("Kept", bound=Record)


def key_of(*parts: object) -> str:
    """Return a key that names one request by its content (sha256 over JSON, hexadecimal).

    A journal that was kept for another model, prompt or answer thus never matches.
    """
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


async def ask_all(
    path: Path,
    record: type[Kept],
    keys: Sequence[str],
    ask: Callable[[int], Awaitable[Kept]],
    max_concurrent: int,
    progress: Callable[[int, int], None],
    is_final: Callable[[Kept], bool] = lambda _: True,
) -> tuple[Kept, ...]:
    """Return a record for each key, from the journal at `path` or else from `ask(position)`.

    What is asked for is kept as it comes, unless it is not final. `progress` gets how many
    are done, of how many.
    """
    results: dict[int, Kept] = {}
    with Journal(path, record) as journal:

        async def result(position: int) -> None:
            given = journal.get(keys[position])
            if given is None:
                given = await ask(position)
                if is_final(given):
                    journal.add(keys[position], given)
            results[position] = given
            progress(len(results), len(keys))

        await work_through(range(len(keys)), max_concurrent, result)
    return tuple(results[position] for position in range(len(keys)))


class Journal(Generic[Kept]):
    """A file of JSON lines `{"key": ..., "record": {...}}`, appended to and read back.

    A last line without its newline was cut off by a kill: it is dropped and the rest kept.
    Anything else that can't be read raises LoraAssetsError naming the line, as do a file
    that can't be opened and a disk that is full. For one process at a time.
    """

    def __init__(self, path: Path, record: type[Kept]) -> None:
        self._path = path
        self._kept: dict[str, Kept] = {}
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
            self._kept[entry["key"]] = record.model_validate(entry["record"])
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

    def add(self, key: str, record: Kept) -> None:
        """Keep a record; it is on file when this returns."""
        line = json.dumps({"key": key, "record": record.model_dump(mode="json")}).encode() + b"\n"
        with self._os_errors_named():
            if (written := self._file.write(line)) < len(line):
                self._file.write(line[written:])
        self._kept[key] = record

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
