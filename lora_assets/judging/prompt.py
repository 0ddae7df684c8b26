"""The judge's question, and the reading of its grade."""

import json
from importlib.resources import files

from pydantic import JsonValue, ValidationError

from lora_assets.records import Record
from lora_assets.records.grades import Letter


class JudgeCase(Record):
    """One answer with all that is needed to grade it."""

    question_type: str
    question: str
    context: str
    reference_answer: str
    answer: str


class Judgement(Record):
    """The judge's reply: a reason first, so that the grade follows from it."""

    reason: str
    grade: Letter


_INSTRUCTIONS = files(__package__).joinpath("instructions.txt").read_text()

RESPONSE_FORMAT: dict[str, JsonValue] = {
    "type": "json_schema",
    "json_schema": {"name": "judgement", "strict": True, "schema": Judgement.model_json_schema()},
}


def judge_messages(case: JudgeCase) -> list[JsonValue]:
    """Return the chat that asks for one grade.

    One user message, because chat templates such as Mistral-7B-Instruct's refuse a system
    role. The case is one line of JSON, which no text inside it can end; "<" and "[" are
    escaped, so that it can't spell a model's control tokens ([/INST], <|eot_id|>) either.
    """
    encoded = json.dumps(case.model_dump(), ensure_ascii=False)
    encoded = encoded.replace("<", "\\u003c").replace("[", "\\u005b")
    return [{"role": "user", "content": _INSTRUCTIONS + encoded}]


def read_case(message: str) -> JudgeCase | None:
    """Return the case in a message of `judge_messages`; None for any other message."""
    if not message.startswith(_INSTRUCTIONS):
        return None
    try:
        return JudgeCase.model_validate_json(message.removeprefix(_INSTRUCTIONS))
    except ValidationError:
        return None


def parse_grade(content: str) -> Judgement | None:
    """Return the judge's reply; None unless it is exactly such an object."""
    try:
        json.loads(content, object_pairs_hook=_no_repeats)
        return Judgement.model_validate_json(content)
    except (ValueError, RecursionError):  # pydantic's ValidationError is a ValueError
        return None


def _no_repeats(pairs: list[tuple[str, JsonValue]]) -> dict[str, JsonValue]:
    # json keeps the last of two "grade" fields without a word, which would be a guess.
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise ValueError("a field is given twice")
    return fields
