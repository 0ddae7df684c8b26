"""Have the judge grade every answer."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import httpx
from pydantic import BaseModel, JsonValue

from lora_assets.errors import LoraAssetsError
from lora_assets.judging.journal import ask_all, key_of
from lora_assets.judging.prompt import RESPONSE_FORMAT, JudgeCase, judge_messages, parse_grade
from lora_assets.records.dataset import Row
from lora_assets.records.grades import Answer, Grade, Side
from lora_assets.serving import http_client

_ATTEMPTS = 3
_MAX_TOKENS = 512
_RETRY_TEMPERATURE = 0.3
_LONGEST_EXCERPT = 120


class _Message(BaseModel):
    # null where the model refused or spent its tokens before it came to its reply
    content: str | None


class _Choice(BaseModel):
    message: _Message


class _ChatCompletion(BaseModel):
    choices: tuple[_Choice]


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
        for side, given in answers.items()
        for answer in given
    ]

    async def ask(number: int) -> Grade:
        side, row, messages = cases[number]
        for attempt in range(_ATTEMPTS):
            content = await _reply(client, judge_model, messages, attempt)
            if content is not None and (judgement := parse_grade(content)):
                return Grade(row=row, side=side, letter=judgement.grade, reason=judgement.reason)
        excerpt = "nothing" if content is None else repr(content[:_LONGEST_EXCERPT])
        reason = f"no readable grade in {_ATTEMPTS} replies, the last: {excerpt}"
        return Grade(row=row, side=side, letter=None, reason=reason)

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


async def _reply(
    client: httpx.AsyncClient, model: str, messages: list[JsonValue], attempt: int
) -> str | None:
    body: dict[str, JsonValue] = {
        "model": model,
        "messages": messages,
        "max_tokens": _MAX_TOKENS,
        "response_format": RESPONSE_FORMAT,
        # A deterministic judge would repeat an unreadable reply for ever.
        "temperature": _RETRY_TEMPERATURE if attempt else 0,
        "seed": attempt,
    }
    reply = await http_client.ask(client, "/v1/chat/completions", body, _ChatCompletion)
    return reply.choices[0].message.content
