"""The folder that a model server reads its adapters from, and every change to it.

Runs in this process for a folder that is shared, and as `python3 - ROOT COMMAND ARGUMENT...` on
the replica for one that is not, so it needs nothing but the standard library. `slots.py` says
what lies where. Each change is made aside and appears in one step.
"""

import errno
import fcntl
import hashlib
import json
import os
import re
import shutil
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path
from typing import IO

FILES = ("adapter_config.json", "adapter_model.safetensors")
NAMES, SLOTS = "names", "slots"
_BLOCK = 1 << 20
_ABANDONED_SECONDS = 3600
"""After this a copy that has not ended was killed: an exec is given up long before."""
_DIGEST = re.compile(r"[0-9a-f]{64}")
NAME = r"[A-Za-z0-9][A-Za-z0-9._-]*"
"""What an adapter or a slot can be called: it names a link, so it has no way out."""
_NAME = re.compile(NAME)
_TARGETS = {NAMES: re.compile(r"\.\./[0-9a-f]{64}"), SLOTS: re.compile(rf"\.\./{NAMES}/{NAME}")}
"""Where links lead."""
_MOST_FOREIGN = 20


class Refused(Exception):
    """What was asked for can't be done; the text is the cause, in one line."""


def digest_folder(folder: Path) -> str:
    """sha256 over the files in name order: name, size and bytes; memory doesn't grow with them."""
    total = hashlib.sha256()
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        total.update(f"{path.relative_to(folder).as_posix()}\0{path.stat().st_size}\0".encode())
        with path.open("rb") as file:
            while block := file.read(_BLOCK):
                total.update(block)
    return total.hexdigest()


def intact(root: Path, digest: str) -> bool:
    """Return whether `<digest>/` is there with the bytes that its name says."""
    return _digest_there(root, digest) == digest


def verify(root: Path, digest: str) -> None:
    """Refuse an adapter that is missing or whose bytes have changed."""
    there = _digest_there(root, digest)
    if there is None:
        raise Refused(f"there is no adapter {digest[:12]}")
    if there != digest:
        holds = f"has digest {there[:12]}: its bytes have changed" if there else "holds a link"
        raise Refused(f"adapter {digest[:12]} {holds}")


def _digest_there(root: Path, digest: str) -> str | None:
    folder = root / _checked(_DIGEST, digest)
    return _digest_of(folder) if folder.is_dir() else None


def _digest_of(folder: Path) -> str:
    """The digest of what it holds; that of nothing where a link could be turned elsewhere."""
    has_links = any(path.is_symlink() for path in (folder, *folder.rglob("*")))
    return "" if has_links else digest_folder(folder)


def receive(root: Path, digest: str, stream: IO[bytes] | None = None) -> None:
    """Unpack a tar stream (standard input) of an adapter's files as `<digest>/`, if it is right.

    A folder of that name with other bytes is damaged, and is replaced. Refused, with nothing
    changed, for other bytes, for a stream that breaks off, and for anything but the files.
    """
    with _incoming(root, digest) as incoming:
        try:
            with tarfile.open(fileobj=stream or sys.stdin.buffer, mode="r|") as archive:
                for member in archive:
                    if member.name not in FILES or not member.isreg():
                        raise Refused(f"the stream holds {member.name!r}, no adapter file")
                    source = archive.extractfile(member)
                    assert source is not None
                    _write(source, incoming / member.name, member.size)
        except tarfile.TarError as error:
            raise Refused(f"the stream broke off ({error})") from None


def copy(root: Path, digest: str, source: str) -> None:
    """Copy an adapter's files from `source` as `<digest>/`, as `receive` does from a stream."""
    with _incoming(root, digest) as incoming:
        for name in FILES:
            with Path(source, name).open("rb") as file:
                _write(file, incoming / name, os.fstat(file.fileno()).st_size)


def set_name(root: Path, name: str, digest: str) -> None:
    """Let an adapter's own serving name stand for its digest folder."""
    _link(root / NAMES / _checked(_NAME, name), Path("..") / _checked(_DIGEST, digest), root)


def set_slot(root: Path, slot: str, name: str, seen: str = "") -> None:
    """Let a slot stand for an adapter's own name from now on; refused if its mark is not `seen`."""
    link, target = root / SLOTS / _checked(_NAME, slot), Path("..") / NAMES / _checked(_NAME, name)
    if not (root / NAMES / name).is_dir():
        raise Refused(f"there is no adapter {name} in {root}")
    with _locked(root, slot, seen):
        _link(link, target, root)


def mark(root: Path, slot: str) -> str:
    """What tells a slot's link from each one before it, also where that led to the same adapter."""
    link = root / SLOTS / _checked(_NAME, slot)
    made = link.lstat() if link.is_symlink() else None
    return f"{made.st_ino} {made.st_mtime_ns}" if made else "none"


def clear_slot(root: Path, slot: str, seen: str = "") -> None:
    """Let a slot stand for nothing, if it stands for anything; refused as by `set_slot`."""
    with _locked(root, slot, seen):
        (root / SLOTS / _checked(_NAME, slot)).unlink(missing_ok=True)


def names(root: Path) -> dict[str, str]:
    """The digest that each adapter's own name stands for."""
    return _links(root / NAMES)


def slots(root: Path) -> dict[str, str]:
    """The adapter's own name that each slot stands for."""
    return _links(root / SLOTS)


def contents(root: Path) -> dict[str, dict[str, str]]:
    """`digests`: folder to the digest of what it holds; `names` to digests; `slots` to names.

    `foreign` are the first entries that nothing here makes, and where links among them lead.
    """
    foreign = islice(_foreign(root), _MOST_FOREIGN)
    return {
        "digests": {folder.name: _digest_of(folder) for folder in _adapters(root)},
        "names": names(root),
        "slots": slots(root),
        "foreign": {str(path.relative_to(root)): _target(path) for path in foreign},
    }


def _foreign(root: Path) -> Iterator[Path]:
    """Hidden entries are locks, copies under way, and what file systems leave."""
    for entry in _entries(root):
        if entry.name in _TARGETS and entry.is_dir() and not entry.is_symlink():
            links = (link for link in _entries(entry) if not link.name.startswith("."))
            yield from (link for link in links if not _TARGETS[entry.name].fullmatch(_target(link)))
        elif _DIGEST.fullmatch(entry.name) and entry.is_dir() and not entry.is_symlink():
            for file in _entries(entry):
                if file.name not in FILES or file.is_symlink() or not file.is_file():
                    yield file
        elif not entry.name.startswith(".") and entry.name != "lost+found":
            yield entry


def _target(link: Path) -> str:
    """Where a link leads; nowhere for what is none, or is gone by now."""
    try:
        return str(link.readlink())
    except OSError:
        return ""


def prune(root: Path, *keep: str) -> None:
    """Remove adapters that are not in `keep` (digests) and that no slot stands for.

    What copies left that were killed goes with them.
    """
    with _locked(root):
        links = names(root)
        kept = {*keep, *(links.get(name, "") for name in slots(root).values())}
        for name, digest in links.items():
            if digest not in kept:
                (root / NAMES / name).unlink()
        for left in root.glob(".incoming-*"):
            # Younger ones may be gone in the next moment, by their own process.
            with suppress(FileNotFoundError):
                if time.time() - left.stat().st_mtime > _ABANDONED_SECONDS:
                    shutil.rmtree(left)
        with tempfile.TemporaryDirectory(dir=root, prefix=".incoming-") as aside:
            for folder in _adapters(root):
                if folder.name not in kept:
                    folder.rename(Path(aside) / folder.name)


def is_name(text: str) -> bool:
    """Whether an adapter or a slot can have this name."""
    return _NAME.fullmatch(text) is not None


def _checked(pattern: re.Pattern[str], name: str) -> str:
    if not pattern.fullmatch(name):
        raise Refused(f"{name!r} is no name for an adapter, a slot or a digest")
    return name


def _adapters(root: Path) -> list[Path]:
    return [each for each in _entries(root) if _DIGEST.fullmatch(each.name)]


def _links(folder: Path) -> dict[str, str]:
    links = {}
    for each in _entries(folder):
        with suppress(FileNotFoundError):  # It may go between the two looks.
            if each.is_symlink():
                links[each.name] = each.readlink().name
    return links


def _entries(folder: Path) -> list[Path]:
    return sorted(folder.iterdir()) if folder.is_dir() else []


def _write(source: IO[bytes], to: Path, size: int) -> None:
    """Write a file of `size` bytes, where the file system has room or doesn't tell."""
    room = shutil.disk_usage(to.parent)
    if room.total and room.free < size:
        raise OSError(errno.ENOSPC, f"{room.free} bytes are free, {to.name} needs {size}")
    with to.open("wb") as file:
        shutil.copyfileobj(source, file, _BLOCK)
        file.flush()
        os.fsync(file.fileno())


def _link(link: Path, target: Path, root: Path) -> None:
    link.parent.mkdir(parents=True, exist_ok=True)
    with _aside(root) as aside:
        made = aside / link.name
        made.symlink_to(target)
        made.replace(link)


@contextmanager
def _incoming(root: Path, digest: str) -> Iterator[Path]:
    """A folder to fill; what it holds then becomes `<digest>/`, if its digest is right."""
    folder = root / _checked(_DIGEST, digest)
    with _aside(root) as aside:
        incoming = aside / digest
        incoming.mkdir()
        yield incoming
        arrived = digest_folder(incoming)
        if arrived != digest:
            raise Refused(f"what arrived has digest {arrived[:12]}, not {digest[:12]}")
        with _locked(root):
            if os.path.lexists(folder):
                folder.rename(aside / "replaced")
            incoming.rename(folder)


@contextmanager
def _aside(root: Path) -> Iterator[Path]:
    root.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=root, prefix=".incoming-") as aside:
        yield Path(aside)


@contextmanager
def _locked(root: Path, slot: str = "", seen: str = "") -> Iterator[None]:
    with (root / ".lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if seen and seen != mark(root, slot):
            raise Refused(f"another one has set {slot} meanwhile")
        yield


_CHANGES = (receive, copy, set_name, set_slot, clear_slot, prune)
_LOOKS = (intact, verify, mark, names, slots, contents)
_COMMANDS: Mapping[str, Callable[..., object]] = {
    each.__name__: each for each in (*_CHANGES, *_LOOKS)
}


def answer(root: Path, command: str, arguments: Sequence[str]) -> Mapping[str, object]:
    """Return what the command gives as `done`, or why it can't be done: `refused` or `failed`."""
    try:
        return {"done": _COMMANDS[command](root, *arguments)}
    except Refused as error:
        return {"refused": str(error)}
    except OSError as error:
        return {"failed": error.strerror or str(error)}


if __name__ == "__main__":
    print(json.dumps(answer(Path(sys.argv[1]), sys.argv[2], sys.argv[3:])))
