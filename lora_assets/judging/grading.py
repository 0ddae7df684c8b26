"""Have the judge grade every answer."""

import asyncio
from collections.abc import Sequence

import httpx
from pydantic import JsonValue

from lora_assets.errors import LoraAssetsError
from lora_assets.judging.chat import Chat, Reply
from lora_assets.judging.journal import Journal, Reuse, key_of
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


class Grader:
    """Grades answers as they come, none twice: equal ones to the same row share their grade.

    Grades are kept in the journal as they come; those there for the same judge, its prompt and
    the same case are not asked for again. A reply that is not a grade is asked for again, three
    times in all, and then stands as a grade without a letter, which is not kept: a later run
    asks once more. The first `reuse.proofs` kept grades that are wanted are asked for anyway.
    """

    def __init__(
        self,
        client: httpx.AsyncClient,
        judge_model: str,
        rows: Sequence[Row],
        journal: Journal[Grade],
        max_concurrent: int,
        reuse: Reuse[Grade],
    ) -> None:
        self.reuse = reuse
        self._chat = Chat(client, judge_model)
        self._rows = rows
        self._journal = journal
        self._free = asyncio.Semaphore(max_concurrent)
        self._given: dict[str, asyncio.Task[Grade]] = {}
        self._unproved: dict[str, tuple[Side, Answer]] = {}
        self._proofs = reuse.proofs
        self._failure: LoraAssetsError | None = None
        if reuse.fresh:
            journal.forget()

    async def grade(self, side: Side, answer: Answer) -> Grade:
        """Return the grade of an answer; raise LoraAssetsError when the judge fails for good."""
        key = key_of(self._chat.model, answer.row, self._messages(answer))
        if key not in self._given:
            self._given[key] = asyncio.create_task(self._once(key, side, answer))
        return (await self._given[key]).model_copy(update={"side": side})

    async def again(self, side: Side, answer: Answer) -> Grade:
        """Return the grade of an answer by a request of its own, which is not kept."""
        async with self._free:
            if self._failure is not None:
                raise self._failure
            try:
                letter, reason = await _judge(self._chat, self._messages(answer), answer.text)
            except LoraAssetsError as error:
                # The judge is not asked for all the others, each of which would wait for it.
                self._failure = error
                raise
        return Grade(row=answer.row, side=side, letter=letter, reason=reason)

    async def settle(self) -> None:
        """Ask for what was taken from before, if what was asked for again differed."""
        if self.reuse.dropped:
            unproved, self._unproved = self._unproved, {}
            self._journal.forget()
            for key, case in unproved.items():
                self._given[key] = asyncio.create_task(self._once(key, *case))
            await asyncio.gather(*(self._given[key] for key in unproved))

    async def _once(self, key: str, side: Side, answer: Answer) -> Grade:
        kept = self._journal.get(key)
        if kept is not None and not self._proofs:
            self._unproved[key] = side, answer
            self.reuse.count(self._journal, key)
            return kept
        self._proofs -= kept is not None
        grade = await self.again(side, answer)
        if kept is not None and kept.letter == grade.letter:
            self.reuse.count(self._journal, key)
            return kept
        self.reuse.dropped = self.reuse.dropped or kept is not None
        if grade.letter is not None:
            self._journal.add(key, grade)
        return grade

    def _messages(self, answer: Answer) -> list[JsonValue]:
        row = self._rows[answer.row]
        return judge_messages(
            JudgeCase(
                question_type=row.metadata.question_type,
                question=row.question,
                context=row.context,
                reference_answer=row.reference_answer,
                answer=answer.text,
            )
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
