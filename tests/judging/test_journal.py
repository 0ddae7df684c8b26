import resource
from pathlib import Path

import pytest

from lora_assets.errors import LoraAssetsError
from lora_assets.judging.journal import Journal, key_of
from lora_assets.records.grades import Answer


def _answer(row: int) -> Answer:
    return Answer(row=row, text="line\N{LINE SEPARATOR}end \N{GRINNING FACE}\n", latency=0.25)


def test_a_last_line_cut_off_anywhere_is_dropped_and_the_rest_kept(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    with Journal(path, Answer) as journal:
        journal.add("a", _answer(0))
        first = path.stat().st_size
        journal.add("b", _answer(1))
    whole = path.read_bytes()
    for cut in range(first, len(whole)):
        path.write_bytes(whole[:cut])
        with Journal(path, Answer) as journal:
            assert journal.get("a") == _answer(0)
            assert journal.get("b") is None
            journal.add("b", _answer(1))
        assert path.read_bytes() == whole


@pytest.mark.parametrize(
    "line", [b"{}", b"\xff", b"[]", b'{"key": "a", "record": {"row": "x"}}', b'{"key": []}', b""]
)
def test_a_damaged_line_is_named(tmp_path: Path, line: bytes) -> None:
    path = tmp_path / "answers.jsonl"
    with Journal(path, Answer) as journal:
        journal.add("a", _answer(0))
    with path.open("ab") as file:
        file.write(line + b"\n")
    with pytest.raises(LoraAssetsError, match="Line 2 of the journal"):
        Journal(path, Answer)


def test_a_line_that_no_longer_fits_is_an_error_and_the_lines_before_it_are_kept(
    tmp_path: Path,
) -> None:
    path = tmp_path / "answers.jsonl"
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    with Journal(path, Answer) as journal:
        journal.add("a", _answer(0))
        resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 9, limits[1]))
        try:
            with pytest.raises(LoraAssetsError, match="can't be kept: File too large"):
                journal.add("b", _answer(1))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    with Journal(path, Answer) as journal:
        assert journal.get("a") == _answer(0)
        assert journal.get("b") is None


def test_a_journal_in_a_place_that_is_no_folder_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(LoraAssetsError, match="can't be kept"):
        Journal(tmp_path / "file" / "answers.jsonl", Answer)


def test_keys_differ_wherever_the_request_does() -> None:
    assert key_of(0, {"model": "m", "max_tokens": 1}) == key_of(0, {"max_tokens": 1, "model": "m"})
    assert key_of(0, {"model": "m"}) != key_of(1, {"model": "m"})
    assert key_of(0, {"model": "m"}) != key_of(0, {"model": "n"})
