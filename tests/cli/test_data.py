"""lora-assets data: what is wrong with data is known before they become a version."""

import json
from pathlib import Path

import pytest

from lora_assets.records.dataset import SplitName
from lora_assets.records.split_file import parse_split
from lora_assets.resources.data_bucket import PROCESSED, DataBucket
from tests.support.commands import Run
from tests.support.consoles import block
from tests.support.rows import make_contents, make_line


@pytest.mark.parametrize("command", [("check",), ("add", "--data-version", "1")])
def test_rows_that_the_server_could_not_take_are_named_before_there_is_a_version(
    run: Run, tmp_path: Path, command: tuple[str, ...]
) -> None:
    def lengthen(name: SplitName, lines: list[str]) -> None:
        if name == "eval":
            prompt = "word " * 60
            long = {"prompt_inference": prompt, "prompt_training": f"{prompt}a"}
            lines.append(make_line(9, context="long", **long))

    for name, content in make_contents(lengthen).items():
        (tmp_path / f"{name}.jsonl").write_bytes(content)
    for limits, of in (
        ({"VLLM_MAX_MODEL_LEN": "50"}, "50 tokens (the server's max_model_len)"),
        ({"VLLM_MAX_MODEL_LEN": "512"}, "40 tokens (max-seq-length)"),
    ):
        options = ("--max-seq-length", "40") if "40" in of else ()
        ended, printed = run(limits, "data", *command, str(tmp_path), *options)
        assert printed == f"eval.jsonl line 3: longer than {of}\n"
        assert str(ended).startswith(f"error: Faults in {tmp_path}: 1. ")
        again = run(limits, "data", *command, str(tmp_path), *options, "--json")
        faults = {"faults": [printed.strip()], "notes": []}
        assert (again[0], json.loads(again[1])) == (ended, faults)
    ended, _ = run({"VLLM_MAX_MODEL_LEN": "512"}, "data", "check", str(tmp_path))
    assert ended == 0


@pytest.mark.parametrize("command", [("check",), ("add", "--data-version", "1")])
def test_a_path_that_is_not_there_is_named(
    run: Run, tmp_path: Path, command: tuple[str, ...]
) -> None:
    ended, _ = run({}, "data", *command, str(tmp_path / "gone"))
    assert ended == f"error: {tmp_path / 'gone'} does not exist. Correct the path."


@pytest.mark.parametrize(("name", "leaks"), [("sound", False), ("allowed", True)])
def test_sound_data_end_with_0(run: Run, tmp_path: Path, name: str, leaks: bool) -> None:
    def leak(split: SplitName, lines: list[str]) -> None:
        if leaks and split == "eval":
            lines.append(make_line(0))

    for split, content in make_contents(leak).items():
        (tmp_path / f"{split}.jsonl").write_bytes(content)
    options = ("--max-leak", "1") if leaks else ()
    ended, printed = run({}, "data", "check", str(tmp_path), *options)
    assert ended == 0
    assert printed.startswith("note: eval.jsonl line 3: ") == leaks


@pytest.mark.integration
def test_the_list_names_what_it_passes_over(run: Run, tmp_path: Path) -> None:
    bucket = DataBucket(uri=(tmp_path / "bucket").as_uri())
    bucket.add("1", make_contents())
    bucket.store.put(f"{PROCESSED}/my data/train.jsonl", b"")
    before = sorted(tmp_path.rglob("*"))
    ended, printed = run({"LORA_ASSETS_HOME": str(tmp_path)}, "data", "list")
    assert {path.name for path in set(tmp_path.rglob("*")) - set(before)} <= {
        *("mlflow.db", "mlflow.db.lock")
    }
    assert (ended, printed.splitlines()) == (
        0,
        ["data versions: 1", "passed over: my data can't be the name of a data version"],
    )


def test_the_format_is_described_once_with_rows_that_are_taken(run: Run) -> None:
    ended, described = run({}, "data", "describe")
    assert (ended, described) == (0, block("docs/data.md", "text", "format"))
    lines = [line for line in described.splitlines() if line.startswith("{")]
    rows, faults = parse_split("train", "\n".join(lines).encode())
    assert (len(rows), faults) == (3, [])
    assert [json.loads(line).get("metadata") is None for line in lines] == [False, False, True]


@pytest.mark.integration
def test_one_file_of_alpaca_becomes_a_version_only_when_it_is_sound(
    run: Run, tmp_path: Path
) -> None:
    environment = {"LORA_ASSETS_HOME": str(tmp_path)}
    lines = [
        {"instruction": f"What does A{n} do?", "input": f"A{n}: does {n}.", "output": output}
        for n in range(100)
        for output in (f"Does {n}." if n % 3 else "It is not in the list.",)
    ]
    file = tmp_path / "mine.jsonl"
    command = ("data", "add", str(file), "--data-version", "1", "--format", "alpaca")
    file.write_text("\n".join(map(json.dumps, [*lines[:7], {**lines[7], "output": " "}])))
    ended, printed = run(environment, *command)
    assert "mine.jsonl: 1. Nothing was added" in str(ended)
    assert "mine.jsonl line 8: reference_answer: is blank" in printed
    bucket = DataBucket(uri=(tmp_path / "bucket").as_uri())
    assert bucket.versions() == ()
    file.write_text("\n".join(map(json.dumps, lines)))
    ended, printed = run(environment, *command, "--json")
    added = json.loads(printed)
    assert (ended, added["data_version"], added["faults"]) == (0, "1", [])
    assert added["place"] == (tmp_path / "bucket" / PROCESSED / "1").as_uri()
    assert sum(split.rows for split in bucket.read("1")[0].splits.values()) == 100


@pytest.mark.integration
def test_no_file_of_a_folder_is_left_out_without_a_word(run: Run, tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    for split, content in make_contents().items():
        (folder / f"{split}.jsonl").write_bytes(content)
    (folder / "test.json").write_text("no JSON")
    command = ("data", "add", str(folder), "--data-version", "1")
    ended, printed = run({"LORA_ASSETS_HOME": str(tmp_path)}, *command)
    assert ended == 0
    assert "note: test.json is left out: it is none of the splits\n" in printed
    (folder / "train.json").write_text("[]")
    ended, _ = run({"LORA_ASSETS_HOME": str(tmp_path)}, *command)
    assert ended == f"error: {folder} has train.json and train.jsonl. Keep one of them."


@pytest.mark.integration
def test_without_a_name_the_newest_data_version_is_taken_and_named(
    run: Run, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    environment = {"LORA_ASSETS_HOME": str(tmp_path)}
    ended, _ = run(environment, "train", "--step", "download-data")
    assert str(ended).startswith("error: There is no data version in file:")
    for name in ("2", "10"):
        DataBucket(uri=(tmp_path / "bucket").as_uri()).add(name, make_contents())
    ended, _ = run({**environment, "LORA_ASSETS_OUTPUTS": str(tmp_path)}, "train", "--step",
                   "download-data")  # fmt: skip
    assert ended == 0
    assert (tmp_path / "data-version").read_text() == "10"
