"""Rows from the formats that people have."""

import json
from typing import Any

import pytest

from lora_assets.errors import LoraAssetsError
from lora_assets.judging.refusals import declines
from lora_assets.records.conversion import Format, convert, deal_out
from lora_assets.records.dataset import Row, prompt_of

CONTEXT, QUESTION, ANSWER = "A: does a.", "What does A do?", "Does a."


def chat(*said: tuple[str, str]) -> dict[str, Any]:
    return {"messages": [{"role": role, "content": content} for role, content in said]}


@pytest.mark.parametrize(
    ("form", "given"),
    [
        ("messages", chat(("system", CONTEXT), ("user", QUESTION), ("assistant", ANSWER))),
        ("messages", {**chat(("user", QUESTION), ("assistant", ANSWER)), "context": CONTEXT}),
        ("prompt-completion", {"prompt": QUESTION, "completion": f" {ANSWER}", "context": CONTEXT}),
        ("alpaca", {"instruction": QUESTION, "input": CONTEXT, "output": ANSWER}),
    ],
)
@pytest.mark.parametrize("array", [False, True])
@pytest.mark.parametrize("said", [False, True])
def test_each_format_becomes_the_row_that_inference_will_ask(
    form: Format, given: dict[str, Any], array: bool, said: bool
) -> None:
    content = json.dumps([given] if array else given).encode()
    row = Row.model_validate(convert("my.json", content, form if said else None, declines)[0])
    assert (row.context, row.question, row.reference_answer) == (CONTEXT, QUESTION, ANSWER)
    assert row.prompt_inference == prompt_of(CONTEXT, QUESTION)
    assert row.answer == f" {ANSWER}"


def test_an_answer_that_declines_is_a_negative_unless_the_row_says_otherwise() -> None:
    given = {"prompt": QUESTION, "completion": "It is not in the list."}
    typed = {**given, "metadata": {"question_type": "factual"}}
    content = f"{json.dumps(given)}\r{json.dumps(typed)}\n\n".encode()
    rows = [Row.model_validate(r) for r in convert("f", content, "prompt-completion", declines)]
    assert [row.is_negative for row in rows] == [True, False]
    assert convert("f", b" \n", None, declines) == []


@pytest.mark.parametrize(
    ("form", "line", "fault"),
    [
        ("alpaca", {"instruction": "q"}, "line 2: has no field 'output'"),
        ("messages", chat(("user", "q")), "line 2: ValueError: not enough values"),
        ("messages", chat(("assistant", "a"), ("user", "q")), "line 2: TypeError: does not end"),
        (
            "messages",
            chat(("user", "p"), ("user", "q"), ("assistant", "a")),
            "line 2: TypeError: has more than one question",
        ),
        ("prompt-completion", {"prompt": "q", "completion": 1}, "line 2: AttributeError"),
        ("specification", "{", "line 2: JSONDecodeError"),
        ("specification", '{"a": 1, "a": 2}', "line 2: ValueError: the key 'a' stands twice"),
        ("specification", "{}\r\n\r{}", "line 3: is blank$|2 faults: line 1: is blank; line 3: is"),
        ("specification", '"abc"', "line 2: TypeError: is not an object"),
        ("specification", '{"a": ' + "[" * 100_000, "line 2: RecursionError"),
    ],
)
def test_what_is_not_in_the_format_is_named_by_line(form: Format, line: Any, fault: str) -> None:
    text = line if isinstance(line, str) else json.dumps(line)
    with pytest.raises(LoraAssetsError, match=fault):
        convert("my.jsonl", f"\n{text}\n".encode(), form, declines)


def test_a_row_of_the_specification_keeps_its_further_fields_whatever_they_are_called() -> None:
    row = {"prompt_inference": "[INST] q [/INST]", "messages": [], "prompt": "p", "instruction": 1}
    assert convert("f", json.dumps(row).encode(), None, declines) == [row]


def test_rows_are_dealt_out_by_what_they_ask_alone() -> None:
    rows = [{"context": "c\ud800", "question": f"q{n}"} for n in range(1000)]
    dealt = deal_out(rows)
    assert [len(dealt[name]) for name in ("train", "val", "eval")] == pytest.approx(
        [800, 100, 100], abs=30
    )
    again = [{"context": " C\ud800", "question": f"q{n}\n", "answer": "b"} for n in range(1000)]
    assert [len(split) for split in deal_out(again).values()] == [len(s) for s in dealt.values()]
