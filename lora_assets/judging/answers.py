"""Ask one adapter every question of a split, greedily."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

import httpx
from pydantic import BaseModel, JsonValue

from lora_assets.judging.journal import Journal, Reuse, key_of
from lora_assets.records.dataset import Row
from lora_assets.records.grades import Answer
from lora_assets.serving import http_client
from lora_assets.serving.workers import work_through


class _Choice(BaseModel):
    text: str
    # Anything else ("abort", null) is an answer that was cut off, which must not be graded.
    finish_reason: Literal["stop", "length"]


class _Completion(BaseModel):
    choices: tuple[_Choice]


async def answer_all(
    client: httpx.AsyncClient,
    model: str,
    rows: Sequence[Row],
    *,
    journal: Path,
    progress: Callable[[int, int], None],
    max_concurrent: int = 15,
    max_tokens: int = 256,
    reuse: Reuse[Answer] | None = None,
    each: Callable[[Answer], None] = lambda _: None,
    order: Sequence[int] = (),
) -> tuple[Answer, ...]:
    """Return the model's greedy answer to each row's `prompt_inference`, in the rows' order.

    Answers are kept in the journal as they come; those there for the same model, prompt and
    length are not asked for again. What a killed run left is gone on from; where a whole one left
    every answer, `reuse` says what is done with them. `each` gets every answer as soon as
    it is known, and `progress` how many are done, of how many. Rows are asked in the given
    `order`, else in theirs. An empty answer is an answer. Raise LoraAssetsError when a request
    fails for good.
    """
    reuse = reuse or Reuse()
    same: dict[str, JsonValue] = {"model": model, "max_tokens": max_tokens, "temperature": 0}
    bodies = [{**same, "prompt": row.prompt_inference} for row in rows]

    async def ask(row: int) -> Answer:
        started = time.perf_counter()
        completion = await http_client.ask(client, "/v1/completions", bodies[row], _Completion)
        latency = time.perf_counter() - started
        return Answer(row=row, text=completion.choices[0].text, latency=latency)

    keys = [key_of(row, body) for row, body in enumerate(bodies)]
    answers: dict[int, Answer] = {}
    with Journal(journal, Answer, reuse.by) as kept:
        if reuse.fresh or not await reuse.proved(kept, keys, ask):
            kept.forget()

        async def answer(row: int) -> None:
            given = kept.get(keys[row])
            if given is None:
                given = await ask(row)
                kept.add(keys[row], given)
            reuse.count(kept, keys[row])
            answers[row] = given
            each(given)
            progress(len(answers), len(rows))

        await work_through(order or range(len(rows)), max_concurrent, answer)
    return tuple(answers[row] for row in range(len(rows)))
