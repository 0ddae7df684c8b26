from collections.abc import Callable

import pytest

from lora_assets.gates.data import DataThresholds, Splits, data_is_sound, examine
from lora_assets.records.dataset import SPLITS, SplitName, TrainingData
from lora_assets.records.split_file import parse_split
from lora_assets.records.verdict import Verdict
from tests.support.rows import make_contents, make_line

DATA = TrainingData(data_version="1", digest="e" * 64, source="file:///data/1", splits={})
Change = Callable[[SplitName, list[str]], None]


def decide(change: Change | None = None, **thresholds: int) -> Verdict:
    contents = make_contents(change)
    splits = Splits(())
    for name in SPLITS:
        for line, row in parse_split(name, contents[name])[0].items():
            splits.add(name, line, row)
    return data_is_sound(DATA, splits, DataThresholds.model_validate(thresholds), "now")


def repeat(source: str, into: str) -> Change:
    """Return the change that writes `source` at the end of the split `into`."""
    return lambda name, lines: lines.append(source) if name == into else None


def only(kind: str, where: SplitName) -> Change:
    """Return the change that leaves a split only its answerable rows or its negatives."""

    def change(name: SplitName, lines: list[str]) -> None:
        if name == where:
            lines[:] = [line for line in lines if ('"negative"' in line) == (kind == "negatives")]

    return change


def test_rows_of_both_kinds_in_every_split_are_sound() -> None:
    verdict = decide()
    assert verdict.passed
    assert verdict.notes == ()


@pytest.mark.parametrize("name", SPLITS)
@pytest.mark.parametrize(
    ("left", "missing"), [("answerable", "negatives"), ("negatives", "answerable rows")]
)
def test_a_split_of_one_kind_cannot_be_judged(name: SplitName, left: str, missing: str) -> None:
    assert decide(only(left, name)).failures == (f"{missing} in {name} 0 (must be >= 1)",)


def test_without_negatives_where_a_run_says_so_the_verdict_says_that() -> None:
    verdict = decide(only("answerable", "eval"), allow_no_negatives=True)
    assert verdict.passed
    assert verdict.notes == ("no negatives in eval: refusals are not judged",)
    assert decide(allow_no_negatives=True).notes == ()


@pytest.mark.parametrize(
    "texts",
    [
        {},
        {"context": "A:  Does a.\n", "question": "question 0 ", "prompt_inference": "other"},
        {"context": "\u00a0A: Does\u200b a.", "prompt_inference": "other"},
        {"context": "\uff21: Does a.", "question": "Question 0", "prompt_inference": "other"},
        {"context": "B", "question": "r", "prompt_inference": "Q0\u2028"},
        {"reference_answer": "Another."},
    ],
    ids=["the same", "white space", "invisible", "Unicode form", "the prompt alone", "the answer"],
)
def test_a_row_that_a_model_could_not_tell_from_one_of_train_is_a_leak(
    texts: dict[str, str],
) -> None:
    prompt = texts.get("prompt_inference", "Q0")
    row = make_line(0, **{**texts, "prompt_training": f"{prompt} Does a."})
    verdict = decide(repeat(row, "eval"))
    assert verdict.failures == ("duplicate rows 1 (must be <= 0)",)
    (note,) = verdict.notes
    assert note.startswith("eval.jsonl line 3: ")
    assert note.endswith(" as train.jsonl line 1")
    assert decide(repeat(row, "eval"), max_leak=1).passed


def test_a_power_is_another_number() -> None:
    def change(name: SplitName, lines: list[str]) -> None:
        text = {"train": "10\u2076", "eval": "106"}.get(name, name)
        texts = {"context": text, "prompt_inference": text, "prompt_training": f"{text} a"}
        lines.append(make_line(9, **texts))

    assert decide(change).passed


def test_accents_written_in_two_ways_are_the_same() -> None:
    def change(name: SplitName, lines: list[str]) -> None:
        prompt = {"train": "Q\u00e9", "eval": "Qe\u0301"}.get(name)
        if prompt is not None:
            texts = {"context": name, "prompt_inference": prompt, "prompt_training": f"{prompt} a"}
            lines.append(make_line(9, **texts))

    assert decide(change).failures == ("duplicate rows 1 (must be <= 0)",)


def test_a_row_that_its_own_split_has_twice_is_only_noted() -> None:
    verdict = decide(repeat(make_line(0), "train"))
    assert verdict.passed
    assert verdict.notes[0].startswith("train.jsonl line 3: prompt_inference: the same question")


def test_all_faults_of_a_data_version_come_at_once() -> None:
    def change(name: SplitName, lines: list[str]) -> None:
        if name == "val":
            del lines[1]
        elif name == "eval":
            lines += [make_line(0), make_line(30, question=" "), make_line(31, context="</s>")]

    contents = make_contents(change)
    faults, notes = examine(contents, DataThresholds())
    assert faults == [
        "negatives in val 0 (must be >= 1)",
        "eval.jsonl line 4: question: is blank",
        "eval.jsonl line 5: context: holds the control token </s>",
        "eval.jsonl line 3: prompt_inference: "
        "the same question on the same context as train.jsonl line 1",
    ]
    assert notes == []
    assert examine({"train": contents["train"]}, DataThresholds())[0] == [
        "val.jsonl is missing",
        "eval.jsonl is missing",
    ]
