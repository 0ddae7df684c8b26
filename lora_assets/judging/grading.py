"""Have the judge grade every answer."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import httpx
from pydantic import JsonValue

from lora_assets.errors import LoraAssetsError
from lora_assets.judging.chat import Chat, Reply
from lora_assets.judging.journal import ask_all, key_of
from lora_assets.judging.prompt import RESPONSE_FORMAT, JudgeCase, judge_messages, parse_grade
from lora_assets.records.dataset import Row
from lora_assets.records.grades import Answer, Grade, Letter, Side
from lora_assets.serving import http_client

_MAX_TOKENS = (512, 2048, 8192)
"""The tokens of a reply at first, and after one and two that were cut off."""

_ATTEMPTS = len(_MAX_TOKENS)

_RETRY_TEMPERATURE = 0.3
_LONGEST_EXCERPT = 120


async def find_judge_model(client: httpx.AsyncClient) -> str:
    """Return the one model that the judge's server serves; refuse more or fewer than one."""
    served = await http_client.models(client)
    if len(served) == 1:
        return served[0]
    where = f"The judge at {client.base_url} serves"
    if not served:
        raise LoraAssetsError(f"{where} no model", "Check the judge's log.")
    cause = f"{where} {len(served)} models: {', '.join(served)}"
    raise LoraAssetsError(cause, "Name one of them with --judge-model.")


async def grade_all(
    client: httpx.AsyncClient,
    judge_model: str,
    rows: Sequence[Row],
    answers: Mapping[Side, Sequence[Answer]],
    *,
    journal: Path,
    progress: Callable[[int, int], None],
    max_concurrent: int = 15,
) -> tuple[Grade, ...]:
    """Return a grade for each side's answers, side by side in the order of the mapping.

    Grades are kept in the journal as they come; those there for the same judge and the same
    case are not asked for again. A reply that is not a grade is asked for again, three times
    in all, and then stands as a grade without a letter, which is not kept: a later run asks
    once more. Raise LoraAssetsError when a request fails for good.
    """
    cases = [
        (side, answer.row, judge_messages(_case(rows[answer.row], answer)))
        for side, own in answers.items()
        for answer in own
    ]
    given = [answer.text for own in answers.values() for answer in own]

    chat = Chat(client, judge_model)

    async def ask(number: int) -> Grade:
        side, row, messages = cases[number]
        letter, reason = await _judge(chat, messages, given[number])
        return Grade(row=row, side=side, letter=letter, reason=reason)

    def has_letter(grade: Grade) -> bool:
        return grade.letter is not None

    keys = [key_of(judge_model, *case) for case in cases]
    return await ask_all(journal, Grade, keys, ask, max_concurrent, progress, has_letter)


def _case(row: Row, answer: Answer) -> JudgeCase:
    return JudgeCase(
        question_type=row.metadata.question_type,
        question=row.question,
        context=row.context,
        reference_answer=row.reference_answer,
        answer=answer.text,
    )


async def _judge(chat: Chat, messages: list[JsonValue], answer: str) -> tuple[Letter | None, str]:
    """Return the letter for one answer with its reason, or no letter and what was said instead."""
    budget = 0
    for attempt in range(_ATTEMPTS):
        reply = await chat.ask(
            messages,
            {
                "max_tokens": _MAX_TOKENS[budget],
                "response_format": RESPONSE_FORMAT,
                # A deterministic judge would repeat an unreadable reply for ever.
                "temperature": _RETRY_TEMPERATURE if attempt else 0,
                "seed": attempt,
            },
        )
        said = "" if reply.cut_off else reply.content or ""
        if (judgement := parse_grade(said, answer)) is not None:
            return judgement.grade, judgement.reason
        budget += reply.cut_off
    return None, f"no readable grade in {_ATTEMPTS} replies, the last: {_excerpt(reply)}"


def _excerpt(reply: Reply) -> str:
    said = "nothing" if reply.content is None else repr(reply.content[:_LONGEST_EXCERPT])
    if reply.content is None and reply.reasoning:
        said += f" but thoughts: {reply.reasoning[:_LONGEST_EXCERPT]!r}"
    return f"{said} (cut off)" if reply.cut_off else said
