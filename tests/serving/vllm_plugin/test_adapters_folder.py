"""The adapters folder: what arrives in it, what is refused, what stands for what, what goes."""

import io
import os
import shutil
import tarfile
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path
from threading import Barrier
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lora_assets.serving.replica_folder import SharedFolder
from lora_assets.serving.vllm_plugin import adapters_folder
from lora_assets.serving.vllm_plugin.adapters_folder import FILES, Refused, contents, receive

CONFIG, WEIGHTS = FILES
ONE = {CONFIG: b'{"r": 8}', WEIGHTS: b"weights of one" * 100}
TWO = {CONFIG: b'{"r": 8}', WEIGHTS: b"weights of two" * 100}


def digest_of(files: Mapping[str, bytes]) -> str:
    total = sha256()
    for name in sorted(files):
        total.update(f"{name}\0{len(files[name])}\0".encode() + files[name])
    return total.hexdigest()


def tar(files: Mapping[str, bytes], *more: tarfile.TarInfo) -> bytes:
    """An adapter's files, and `more` members before them, as a tar stream."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for member in more:
            archive.addfile(member)
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return stream.getvalue()


def put(root: Path, files: Mapping[str, bytes]) -> str:
    digest = digest_of(files)
    receive(root, digest, io.BytesIO(tar(files)))
    return digest


def everything(root: Path) -> dict[str, bytes]:
    """Every file, folder and link below `root`; a lock holds nothing."""
    return {
        path.relative_to(root).as_posix(): path.read_bytes() if path.is_file() else b""
        for path in root.rglob("*")
        if path.name != ".lock"
    }


def test_what_arrives_has_the_digest_of_names_sizes_and_bytes(tmp_path: Path) -> None:
    digest = put(tmp_path, ONE)
    assert adapters_folder.digest_folder(tmp_path / digest) == digest
    assert everything(tmp_path / digest) == ONE
    assert adapters_folder.intact(tmp_path, digest)
    adapters_folder.verify(tmp_path, digest)
    assert set(everything(tmp_path)) == {digest, f"{digest}/{CONFIG}", f"{digest}/{WEIGHTS}"}


def member(name: str, kind: bytes = tarfile.REGTYPE, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


@pytest.mark.parametrize(
    ("stream", "cause"),
    [
        (tar(TWO), "what arrived has digest"),
        (tar({CONFIG: ONE[CONFIG]}), "what arrived has digest"),
        (tar(ONE)[:700], "broke off"),
        (tar(ONE)[:1600], "broke off"),
        (b"", "broke off"),
        (b"no tar at all" * 100, "broke off"),
        (tar(ONE, member(CONFIG, tarfile.SYMTYPE, "/etc/passwd")), CONFIG),
        (tar(ONE, member(WEIGHTS, tarfile.LNKTYPE, CONFIG)), WEIGHTS),
        (tar(ONE, member(CONFIG, tarfile.FIFOTYPE)), CONFIG),
        (tar(ONE, member("sub", tarfile.DIRTYPE)), "'sub'"),
        (tar(ONE, member("adapter_model.bin")), r"adapter_model\.bin"),
        (tar(ONE, member("/tmp/adapter_config.json")), "'/tmp/adapter_config.json'"),
        (tar(ONE, member("../adapter_config.json")), r"'\.\./adapter_config.json'"),
        (tar(ONE, member(f"./{CONFIG}")), "no adapter file"),
    ],
)
@pytest.mark.parametrize("there", ["nothing", "intact", "damaged"])
def test_a_stream_that_is_not_the_adapter_is_refused_and_nothing_changes(
    tmp_path: Path, stream: bytes, cause: str, there: str
) -> None:
    root = tmp_path / "adapters"
    root.mkdir()
    digest = put(root, ONE) if there != "nothing" else digest_of(ONE)
    if there == "damaged":
        (root / digest / WEIGHTS).write_bytes(b"damaged")
    before = everything(tmp_path)
    with pytest.raises(Refused, match=cause):
        receive(root, digest, io.BytesIO(stream))
    assert everything(tmp_path) == before


STREAM = tar(ONE)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(at=st.integers(0, len(STREAM) - 1), byte=st.integers(0, 255), cut=st.booleans())
def test_a_stream_with_a_changed_byte_is_refused_or_the_adapter_all_the_same(
    tmp_path: Path, at: int, byte: int, cut: bool
) -> None:
    spoiled = STREAM[:at] if cut else STREAM[:at] + bytes([byte]) + STREAM[at + 1 :]
    digest = digest_of(ONE)
    root = tmp_path / f"{at}-{byte}-{cut}"
    try:
        receive(root, digest, io.BytesIO(spoiled))
    except Refused:
        assert everything(root) == {}
    else:
        assert everything(root / digest) == ONE


def test_a_file_for_which_there_is_no_room_is_refused_before_it_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, need = tmp_path / "root", len(ONE[WEIGHTS])
    digest = put(tmp_path / "source", ONE)
    shared, source = SharedFolder(str(root)), tmp_path / "source" / digest
    room = SimpleNamespace(total=need, free=need - 1)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: room)
    cause = f"{need - 1} bytes are free, {WEIGHTS} needs {need}"
    assert shared.run("receive", digest, adapter=source) == {"failed": cause}
    with pytest.raises(OSError, match=cause):
        put(root, ONE)
    assert everything(root) == {}
    room.total = 0
    assert shared.run("receive", digest, adapter=source) == {"done": None}


def test_a_damaged_folder_is_refused_by_name_until_it_is_received_again(tmp_path: Path) -> None:
    digest = put(tmp_path, ONE)
    (tmp_path / digest / WEIGHTS).write_bytes(ONE[WEIGHTS][:-1] + b"!")
    (tmp_path / digest / "more").write_bytes(b"")
    assert not adapters_folder.intact(tmp_path, digest)
    with pytest.raises(Refused, match=f"adapter {digest[:12]} has digest .* bytes have changed"):
        adapters_folder.verify(tmp_path, digest)
    assert put(tmp_path, ONE) == digest
    assert adapters_folder.intact(tmp_path, digest)
    assert set(everything(tmp_path)) == {digest, f"{digest}/{CONFIG}", f"{digest}/{WEIGHTS}"}


def test_an_adapter_that_is_not_there_is_refused_by_name(tmp_path: Path) -> None:
    digest = digest_of(ONE)
    assert not adapters_folder.intact(tmp_path, digest)
    with pytest.raises(Refused, match=f"no adapter {digest[:12]}"):
        adapters_folder.verify(tmp_path, digest)


def test_two_copies_of_one_adapter_at_once_both_succeed(tmp_path: Path) -> None:
    both = Barrier(8)

    def copy(_: int) -> str:
        both.wait()
        return put(tmp_path, ONE)

    with ThreadPoolExecutor(8) as pool:
        digests = set(pool.map(copy, range(8)))
    assert digests == {digest_of(ONE)}
    assert set(everything(tmp_path)) == {*digests, *(f"{d}/{f}" for d in digests for f in FILES)}


def test_names_and_slots_stand_for_what_they_were_last_set_to(tmp_path: Path) -> None:
    one, two = put(tmp_path, ONE), put(tmp_path, TWO)
    adapters_folder.set_name(tmp_path, "m-v1", one)
    adapters_folder.set_name(tmp_path, "m-v2", two)
    adapters_folder.set_slot(tmp_path, "live", "m-v1")
    adapters_folder.set_slot(tmp_path, "live", "m-v2")
    adapters_folder.set_slot(tmp_path, "candidate", "m-v1")
    adapters_folder.clear_slot(tmp_path, "candidate")
    adapters_folder.clear_slot(tmp_path, "candidate")
    (tmp_path / one / CONFIG).write_bytes(b"changed")
    assert contents(tmp_path) == {
        "digests": {one: digest_of({**ONE, CONFIG: b"changed"}), two: two},
        "names": {"m-v1": one, "m-v2": two},
        "slots": {"live": "m-v2"},
        "foreign": {},
    }
    assert (tmp_path / "slots" / "live" / CONFIG).read_bytes() == TWO[CONFIG]


def test_a_slot_is_not_set_to_an_adapter_that_is_not_there(tmp_path: Path) -> None:
    adapters_folder.set_name(tmp_path, "m-v1", digest_of(ONE))
    for name in ("m-v1", "m-v2"):
        with pytest.raises(Refused, match=f"no adapter {name}"):
            adapters_folder.set_slot(tmp_path, "live", name)
    assert contents(tmp_path)["slots"] == {}


def test_a_slot_that_was_set_since_it_was_looked_at_is_refused_to_the_same_adapter_too(
    tmp_path: Path,
) -> None:
    adapters_folder.set_name(tmp_path, "m-v1", put(tmp_path, ONE))
    adapters_folder.set_name(tmp_path, "m-v2", put(tmp_path, TWO))
    for other in ("m-v1", "m-v1"):
        seen = adapters_folder.mark(tmp_path, "live")
        adapters_folder.set_slot(tmp_path, "live", other)
        with pytest.raises(Refused, match="another one has set live"):
            adapters_folder.set_slot(tmp_path, "live", "m-v2", seen)
        assert contents(tmp_path)["slots"] == {"live": other}
    adapters_folder.set_slot(tmp_path, "live", "m-v2", adapters_folder.mark(tmp_path, "live"))
    assert contents(tmp_path)["slots"] == {"live": "m-v2"}


@pytest.mark.parametrize("name", ["", ".", "..", "../out", "/etc", "a/b", "a\n", "a\0", "-rf"])
@pytest.mark.parametrize(
    "act",
    [
        lambda root, name: adapters_folder.set_name(root, name, digest_of(ONE)),
        lambda root, name: adapters_folder.set_name(root, "m-v1", name),
        lambda root, name: adapters_folder.set_slot(root, name, "m-v1"),
        lambda root, name: adapters_folder.set_slot(root, "live", name),
        adapters_folder.clear_slot,
        adapters_folder.mark,
        adapters_folder.intact,
        lambda root, name: receive(root, name, io.BytesIO(STREAM)),
    ],
)
def test_what_is_no_plain_name_is_refused_before_anything_is_touched(
    tmp_path: Path, act: Callable[[Path, str], Any], name: str
) -> None:
    root = tmp_path / "adapters"
    put(root, ONE)
    adapters_folder.set_name(root, "m-v1", digest_of(ONE))
    before = everything(tmp_path)
    with pytest.raises(Refused):
        act(root, name)
    assert everything(tmp_path) == before


def test_pruning_keeps_what_a_slot_stands_for_and_what_is_asked_for(tmp_path: Path) -> None:
    files = [{CONFIG: b"{}", WEIGHTS: bytes([n])} for n in range(4)]
    digests = [put(tmp_path, each) for each in files]
    for number, digest in enumerate(digests):
        adapters_folder.set_name(tmp_path, f"m-v{number}", digest)
    adapters_folder.set_slot(tmp_path, "live", "m-v0")
    adapters_folder.prune(tmp_path, digests[1])
    found = contents(tmp_path)
    assert set(found["digests"]) == set(digests[:2])
    assert found["names"] == {"m-v0": digests[0], "m-v1": digests[1]}
    assert found["slots"] == {"live": "m-v0"}
    assert not list(tmp_path.glob(".incoming-*"))


def test_pruning_removes_what_a_killed_copy_left_but_not_one_under_way(tmp_path: Path) -> None:
    put(tmp_path, ONE)
    for name, age in ((".incoming-killed", 7200), (".incoming-running", 60)):
        (tmp_path / name / "x").mkdir(parents=True)
        (tmp_path / name / "x" / WEIGHTS).write_bytes(b"half")
        os.utime(tmp_path / name, (time.time() - age,) * 2)
    adapters_folder.prune(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {".incoming-running", ".lock"}


def test_what_nothing_of_ours_makes_is_found_wherever_it_lies(tmp_path: Path) -> None:
    root, digest = tmp_path / "root", put(tmp_path / "root", ONE)
    adapters_folder.set_name(root, "m-v1", digest)
    adapters_folder.set_slot(root, "live", "m-v1")
    for fine in (".lock", ".nfs0001", "slots/.nfs0002"):
        (root / fine).touch()
    assert contents(root)["foreign"] == {}
    links = {
        "f" * 64: "/elsewhere",
        "names/m-v2": f"/elsewhere/{digest}",
        "names/m-v3": "../../root",
        "slots/other": f"../{digest}",
        f"{digest}/pytorch_model.bin": "../x",
    }
    for path, target in links.items():
        (root / path).symlink_to(target)
    for path in ("notes.txt", "names/file"):
        (root / path).touch()
    (root / "hub").mkdir()
    assert contents(root)["foreign"] == {**links, "notes.txt": "", "names/file": "", "hub": ""}
    for number in range(100):
        (root / f"more-{number}").touch()
    assert len(contents(root)["foreign"]) == 20


def test_an_adapter_that_is_reached_through_a_link_is_not_intact_and_is_replaced(
    tmp_path: Path,
) -> None:
    root, digest = tmp_path / "root", put(tmp_path / "root", ONE)
    real = tmp_path / "elsewhere"
    (root / digest).rename(real)
    (root / digest).symlink_to(real)
    with pytest.raises(Refused, match=f"adapter {digest[:12]} holds a link"):
        adapters_folder.verify(root, digest)
    assert put(root, ONE) == digest
    assert adapters_folder.intact(root, digest)
    (root / digest / WEIGHTS).unlink()
    (root / digest / WEIGHTS).symlink_to(real / WEIGHTS)
    assert not adapters_folder.intact(root, digest)
    assert contents(root)["digests"] == {digest: ""}
    assert put(root, ONE) == digest
    assert everything(root / digest) == ONE == everything(real)
