"""Rows from the formats that people have: chat messages, prompt and completion, Alpaca."""

import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, get_args

from lora_assets.errors import LoraAssetsError
from lora_assets.records.dataset import SPLITS, SplitName, prompt_of
from lora_assets.records.split_file import SHOWN_FAULTS

Format = Literal["specification", "messages", "prompt-completion", "alpaca"]
FORMATS: Sequence[Format] = get_args(Format)
_TOLD_BY: Mapping[str, Format] = {
    "prompt_inference": "specification",
    "messages": "messages",
    "prompt": "prompt-completion",
    "instruction": "alpaca",
}
"""The field by which an object's format is told; the first that it has counts."""
_SHARES: Mapping[SplitName, float] = {"val": 0.1, "eval": 0.2}
"""Up to where in the range of a hash a row goes there; all others go to train."""


def convert(
    source: str, content: bytes, form: Format | None, declines: Callable[[str], bool]
) -> Sequence[dict[str, Any]]:
    """Return the rows of a file: JSON Lines, or one JSON array.

    Without `form` an object's fields tell its format. An answer that declines makes a negative,
    unless the row has a question type. Raise LoraAssetsError with every object that is not in
    the format.
    """
    rows: list[dict[str, Any]] = []
    faults: list[str] = []
    for number, text in _objects(source, content):
        if not text.strip():
            faults.append(f"line {number}: is blank")
            continue
        try:
            given = json.loads(text, object_pairs_hook=unique)
            if not isinstance(given, dict):
                raise TypeError("is not an object")
            own = form or _told(given)
            rows.append(given if own == "specification" else _row(given, own, declines))
        except KeyError as error:
            faults.append(f"line {number}: has no field {error}")
        except (ValueError, TypeError, AttributeError, RecursionError) as error:
            faults.append(f"line {number}: {type(error).__name__}: {error}")
    if faults:
        shown = "; ".join(faults[:SHOWN_FAULTS])
        raise LoraAssetsError(
            f"{source} is not in the format {form or 'that its fields tell'}: "
            f"{len(faults)} faults: {shown}",
            "Correct these lines, or say what they are with --format.",
        )
    return rows


def _told(given: Mapping[str, Any]) -> Format:
    forms = (form for field, form in _TOLD_BY.items() if field in given)
    return next(forms, "specification")


def deal_out(rows: Sequence[dict[str, Any]]) -> Mapping[SplitName, Sequence[dict[str, Any]]]:
    """Deal rows out to the splits, 8 : 1 : 1, by a hash of context and question alone."""
    dealt: dict[SplitName, list[dict[str, Any]]] = {name: [] for name in SPLITS}
    for row in rows:
        shown = " ".join(f"{row.get('context')} {row.get('question')}".casefold().split())
        digest = hashlib.sha256(shown.encode(errors="surrogatepass")).digest()
        place = int.from_bytes(digest[:8]) / 2**64
        dealt[next((name for name, end in _SHARES.items() if place < end), "train")].append(row)
    return dealt


def _objects(source: str, content: bytes) -> Sequence[tuple[int, str]]:
    """Return each object of the file, with its line or its place in the array."""
    try:
        text = content.decode("utf-8-sig")
        if text.lstrip().startswith("["):
            array = json.loads(text, object_pairs_hook=unique)
            return [(number, json.dumps(given)) for number, given in enumerate(array, start=1)]
    except (ValueError, RecursionError) as error:
        raise LoraAssetsError(
            f"{source} is not JSON in UTF-8: {error}", "Write one JSON object a line."
        ) from None
    whole = text.rstrip()
    return [*enumerate(re.split(r"\r\n|\n|\r", whole), start=1)] if whole else []


def unique(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """Return a JSON object (`object_pairs_hook`); raise ValueError where it has a key twice."""
    keys = [key for key, _ in pairs]
    for key in keys:
        if keys.count(key) > 1:
            raise ValueError(f"the key {key!r} stands twice in its object")
    return dict(pairs)


def _row(given: Mapping[str, Any], form: Format, declines: Callable[[str], bool]) -> dict[str, Any]:
    context = given.get("context") or ""
    match form:
        case "messages":
            *before, asked, answered = given["messages"]
            if (asked["role"], answered["role"]) != ("user", "assistant"):
                raise TypeError("does not end with a user's message and an assistant's")
            if any(message["role"] != "system" for message in before):
                raise TypeError("has more than one question")
            said = [message["content"] for message in before]
            context = "\n".join([*said, *([context] if context else [])])
            question, answer = asked["content"], answered["content"]
        case "prompt-completion":
            question, answer = given["prompt"], given["completion"]
        case _:
            question, answer = given["instruction"], given["output"]
            context = given.get("input") or context
    question, answer, context = question.strip(), answer.strip(), context.strip()
    prompt = prompt_of(context, question) if context else f"[INST] {question} [/INST]"
    metadata = dict(given.get("metadata") or {})
    metadata.setdefault("question_type", "negative" if declines(answer) else "factual")
    return {
        "context": context or question,
        "question": question,
        "reference_answer": answer,
        "prompt_training": f"{prompt} {answer}",
        "prompt_inference": prompt,
        "metadata": metadata,
    }
