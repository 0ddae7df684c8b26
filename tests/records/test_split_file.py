"""The file of a split: what people and exporters leave in it is taken, or named by line."""

import json
from typing import Any

import pytest

from lora_assets.records.split_file import MOST_LINE_BYTES, parse_split, summary
from tests.support.rows import make_line

ONE, TWO = make_line(1).encode(), make_line(2, "negative").encode()


def faults(content: bytes) -> list[str]:
    return [str(fault) for fault in parse_split("val", content)[1]]


@pytest.mark.parametrize(
    "content",
    [
        ONE + b"\n" + TWO + b"\n",
        ONE + b"\n" + TWO,
        b"\xef\xbb\xbf" + ONE + b"\r\n" + TWO + b"\r\n\r\n  \n",
        ONE + b"\r" + TWO,
        ONE + b"\n\xef\xbb\xbf" + TWO + b"\n",
        make_line(1, extra=[1], metadata={"source": "aws"}).encode() + b"\n" + TWO,
    ],
    ids=["plain", "no last newline", "BOM, CRLF, blank end", "CR", "files put together", "extra"],
)
def test_what_editors_and_exporters_leave_is_taken(content: bytes) -> None:
    rows, wrong = parse_split("val", content)
    assert wrong == []
    assert {line: row.question for line, row in rows.items()} == {1: "question 1", 2: "question 2"}
    assert [row.is_negative for row in rows.values()] == [False, True]


def test_a_line_of_many_mebibytes_is_refused_and_what_follows_not_read() -> None:
    lines = ONE + b"\n" + b"x" * (MOST_LINE_BYTES + 1) + b"\n" + TWO
    assert faults(lines) == ["val.jsonl line 2: has more than 16 MiB"]


def test_further_keys_are_kept() -> None:
    rows, _ = parse_split("val", make_line(1, extra=[1], metadata={"source": "aws"}).encode())
    assert rows[1].model_dump()["extra"] == [1]
    assert rows[1].metadata.model_dump() == {"question_type": "factual", "source": "aws"}


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("negative", "negative"),
        (" Negative\t", "negative"),
        ("NEGATIVE", "negative"),
        ("Multi-Hop", "multi_hop"),
        ("multi hop", "multi_hop"),
        ("", "factual"),
        (None, "factual"),
    ],
)
def test_question_types_are_read_as_people_write_them(written: Any, meant: str) -> None:
    rows, _ = parse_split("val", make_line(1, metadata={"question_type": written}).encode())
    assert rows[1].metadata.question_type == meant


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (b"", " is empty"),
        (b"\n \r\n", " is empty"),
        ((make_line(1) + "\n").encode("utf-16"), " is UTF-16, not JSON Lines in UTF-8"),
        (b"[" + ONE + b"," + TWO + b"]", " is one JSON document: write one object a line"),
        (b'{\n"context": "c"\n}', " is one JSON document: write one object a line"),
        (ONE + b"\n\n" + TWO, " line 2: is blank"),
        (ONE + b"\n\xff" + TWO, " line 2: is not UTF-8 (byte 0)"),
        (ONE + b"\n\0\0\0\n", " line 2: holds NUL bytes: the file was cut off"),
        (ONE + b"\n" + TWO[:40], " line 2: is truncated: Invalid JSON: "),
        (ONE + b"\n" + TWO[:40] + b"\n", " line 2: Invalid JSON: "),
        (ONE + b",", " line 1: Invalid JSON: Extra data at column "),
        (ONE + b",\n" + TWO, " line 1: Invalid JSON: Extra data at column "),
        (b'{"a": ' + b"1" * 5000 + b"}\n", " line 1: Invalid JSON: Exceeds the limit"),
        (b"[" * 100000, " is one JSON document"),
        (b'{"a": ' + b"[" * 100000, " line 1: is truncated: Invalid JSON: "),
        (make_line(1, context=None).encode(), " line 1: context: Field required"),
        (make_line(1, question=7).encode(), " line 1: question: Input should be a valid string"),
        (make_line(1, question="\ud800").encode(), " line 1: question: holds half of a"),
        (
            make_line(1, reference_answer=" \u200b\n").encode(),
            " line 1: reference_answer: is blank",
        ),
        (make_line(1, prompt_training="other").encode(), " line 1: Value error, prompt_training"),
        (ONE[:-1] + b', "question": "r"}', " line 1: question: the key stands twice in its object"),
        (
            make_line(1, metadata={"a": 0}).replace('{"a": 0}', '{"a": 0, "a": 1}').encode(),
            " line 1: a: the key stands twice in its object",
        ),
    ],
)
def test_what_cannot_be_taken_is_named_with_its_line_and_field(content: bytes, fault: str) -> None:
    (named,) = faults(content)
    assert named.startswith(f"val.jsonl{fault}")


@pytest.mark.parametrize(
    ("texts", "fault"),
    [
        ({"context": "a <s> b"}, "context: holds the control token <s>"),
        ({"question": "<unk> or [PAD]?"}, "question: holds control tokens <unk>, [PAD]"),
        ({"reference_answer": "[/INST] a"}, "reference_answer: holds the control token [/INST]"),
        (
            {"prompt_inference": "<s>Q", "prompt_training": "<s>Q a"},
            "prompt_inference: holds the control token <s>",
        ),
        ({"prompt_training": "Q1 a <|im_start|> b"}, "prompt_training: holds the control token"),
        ({"prompt_training": "Q1 a</s>"}, "prompt_training: ends with </s>: training adds the end"),
        ({"prompt_training": "Q1 a<|eot_id|>\n"}, "prompt_training: ends with <|eot_id|>: "),
    ],
)
def test_control_tokens_are_named_where_they_are_read_as_marks(
    texts: dict[str, str], fault: str
) -> None:
    (named,) = faults(make_line(1, **texts).encode())
    assert named.startswith(f"val.jsonl line 1: {fault}")


def test_the_marks_of_a_prompt_templates_turns_are_its_own() -> None:
    for prompt in ("[INST] q [/INST]", "<|im_start|>user\nq<|im_end|>\n<|im_start|>assistant\n"):
        line = make_line(1, prompt_inference=prompt, prompt_training=f"{prompt} <b>a</b>")
        assert faults(line.encode()) == []


def test_all_faults_come_at_once_and_the_same_in_many_lines_is_one() -> None:
    blank = json.loads(make_line(1)) | {"reference_answer": " ", "question": ""}
    lines = [ONE, *[json.dumps(blank).encode()] * 3, b"{", TWO, json.dumps(blank).encode()]
    rows, wrong = parse_split("val", b"\n".join(lines))
    assert list(rows) == [1, 6]
    assert len(wrong) == 9
    assert summary(wrong).startswith(
        "val.jsonl lines 2-4, 7: question: is blank; "
        "val.jsonl lines 2-4, 7: reference_answer: is blank; val.jsonl line 5: Invalid JSON: "
    )
    many = parse_split("val", b"\n".join(b"%sx" % (b" " * n) for n in range(30)))[1]
    assert summary(many).endswith("; and 10 more ('lora-assets data check' lists them)")
