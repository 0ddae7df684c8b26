"""Ask one adapter every question of a split, greedily."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Literal

import httpx
from pydantic import BaseModel, Field, JsonValue

from lora_assets.judging.journal import Journal, key_of
from lora_assets.records.dataset import Row
from lora_assets.records.grades import Answer
from lora_assets.serving import http_client
from lora_assets.serving.workers import work_through


class _Choice(BaseModel):
    text: str
    # Anything else ("abort", null) is an answer that was cut off, which must not be graded.
    finish_reason: Literal["stop", "length"]


class _Completion(BaseModel):
    choices: Annotated[list[_Choice], Field(min_length=1, max_length=1)]


async def answer_all(
    client: httpx.AsyncClient,
    model: str,
    rows: Sequence[Row],
    *,
    journal: Path,
    progress: Callable[[int, int], None],
    max_concurrent: int = 15,
    max_tokens: int = 256,
) -> tuple[Answer, ...]:
    """The model's greedy answer to each row's `prompt_inference`, in the order of the rows.

    Answers are kept in the journal as they come; those found there for the same model,
    prompt and length are not asked for again. `progress` gets how many are done, of how
    many. An empty answer is an answer. Raises LoraAssetsError when a request fails for good.
    """
    answers: dict[int, Answer] = {}
    with Journal(journal, Answer) as kept:

        async def answer(row: int) -> None:
            body: dict[str, JsonValue] = {
                "model": model,
                "prompt": rows[row].prompt_inference,
                "max_tokens": max_tokens,
                "temperature": 0,
            }
            key = key_of(row, body)
            found = kept.get(key)
            if found is None:
                started = time.perf_counter()
                completion = await http_client.post(client, "/v1/completions", body, _Completion)
                latency = time.perf_counter() - started
                found = Answer(row=row, text=completion.choices[0].text, latency=latency)
                kept.add(key, found)
            answers[row] = found
            progress(len(answers), len(rows))

        await work_through(range(len(rows)), max_concurrent, answer)
    return tuple(answers[row] for row in range(len(rows)))
