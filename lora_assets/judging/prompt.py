"""The judge's question, and the reading of its grade."""

import json
import re
from importlib.resources import files

from pydantic import JsonValue

from lora_assets.records import Record
from lora_assets.records.conversion import unique
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
    escaped, so that it can't spell a model's control tokens ([/INST], <|eot_id|>) either, and
    so is what nobody sees: line separators, marks of direction, tags.
    """
    encoded = json.dumps(case.model_dump(), ensure_ascii=False)
    encoded = "".join(map(_unmistakable, encoded))
    return [{"role": "user", "content": _INSTRUCTIONS + encoded}]


def _unmistakable(character: str) -> str:
    if character.isprintable() and character not in "<[":
        return character
    # json.dumps leaves ASCII as it is, and makes two escapes of what is beyond U+FFFF.
    return f"\\u{ord(character):04x}" if character < "\x7f" else json.dumps(character)[1:-1]


def read_case(message: str) -> JudgeCase | None:
    """Return the case in a message of `judge_messages`; None for any other message."""
    if not message.startswith(_INSTRUCTIONS):
        return None
    try:
        fields = json.loads(message.removeprefix(_INSTRUCTIONS))
    except ValueError:
        return None
    if not isinstance(fields, dict) or fields.keys() != JudgeCase.model_fields.keys():
        return None
    if not all(isinstance(text, str) for text in fields.values()):
        return None
    # Not validated: pydantic refuses half a surrogate pair, which a model's tokens can be.
    return JudgeCase.model_construct(**fields)


def parse_grade(content: str, answer: str = "") -> Judgement | None:
    """Return the judgement in a judge's reply to `answer`; None unless there is exactly one.

    It is an object with a reason and one letter, alone or on lines of its own: after
    `</think>`, in a fence, with prose around it. Nothing is guessed: another brace or letter in
    that prose, quotation marks around the object, an object that the answer holds itself, or
    thoughts without an end make the reply unreadable.
    """
    text = content.removeprefix("\ufeff").strip()
    if (alone := _judgement(text)) is not None:
        found, around = text, ""
    else:
        thoughts, ended, said = text.partition(_THOUGHTS_END)
        said = said if ended else thoughts
        before, opening, rest = said.partition("{")
        inside, closing, after = rest.rpartition("}")
        before, after = _FENCE.sub("", before), _FENCE.sub("", after)
        found, around = opening + inside + closing, before + after
        is_apart = not (before.rpartition("\n")[2] + after.partition("\n")[0]).strip()
        alone = _judgement(found) if is_apart else None
    if alone is None or _UNCLEAR.search(around) or _bare(found) in _bare(answer):
        return None
    return alone


_THOUGHTS_END = "</think>"
_FENCE = re.compile(r"^[ \t]*```\w*[ \t\r]*$", re.MULTILINE)
_UNCLEAR = re.compile(r"\b[ABC]\b|</?think>|`")


def _bare(text: str) -> str:
    return "".join(text.split())


def _judgement(text: str) -> Judgement | None:
    try:
        # json keeps the last of two "grade" fields without a word, which would be a guess.
        json.loads(text, object_pairs_hook=unique)
        return Judgement.model_validate_json(text)
    except (ValueError, RecursionError):  # pydantic's ValidationError is a ValueError
        return None
