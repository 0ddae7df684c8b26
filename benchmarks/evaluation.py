"""How long an evaluation takes, against the scheme of the specification's scripts.

    python -m benchmarks.evaluation [--json]

The scripts gather the answers of both adapters, and then have every answer graded. Here a model
server and a judge answer after known times, in the proportion of the specification's successful
run (inference 7.5 minutes, judge 41), 200 times as fast. Of 1,200 answers of live and candidate
70 % are alike. Cold: nothing is kept. Warm: another candidate was compared with the same live
before. Times are seconds, calls are the judge's, its measure included.
"""

import argparse
import asyncio
import json
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx

from lora_assets.judging.answers import answer_all
from lora_assets.judging.evaluation import Evaluation
from lora_assets.judging.grading import Grader
from lora_assets.judging.journal import Journal, Reuse
from lora_assets.judging.prompt import read_case
from lora_assets.records.dataset import Row
from lora_assets.records.grades import Grade, Side
from tests.support.rows import make_row

ROWS, NEGATIVES, ALIKE = 1200, 200, 0.7
AT_ONCE = 15
FASTER = 200
ANSWER = 7.5 * 60 * AT_ONCE / ROWS / FASTER
GRADE = 41 * 60 * AT_ONCE / (2 * ROWS) / FASTER
"""Seconds of one request."""
GOALS: Mapping[str, float] = {"cold": 0.85, "warm": 0.45}
"""The most that an evaluation may take of the scripts' time."""


class Server(httpx.AsyncBaseTransport):
    """The model server and the judge, without a network."""

    def __init__(self) -> None:
        self.grades = 0

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        body = json.loads(await request.aread())
        if "prompt" in body:
            await asyncio.sleep(ANSWER)
            number = int(body["prompt"].removeprefix("Q"))
            own = "" if number % 100 < ALIKE * 100 else body["model"]
            choice: Mapping[str, Any] = {"text": f"answer {number} {own}"}
        else:
            self.grades += 1
            await asyncio.sleep(GRADE)
            case = read_case(body["messages"][0]["content"])
            assert case is not None
            right = case.answer.startswith("answer") or case.answer == case.reference_answer
            grade = json.dumps({"reason": "", "grade": "A" if right else "C"})
            choice = {"message": {"role": "assistant", "content": grade}}
        said = {"model": body["model"], "choices": [{**choice, "finish_reason": "stop"}]}
        return httpx.Response(200, json=said)


def rows() -> list[Row]:
    return [
        make_row(
            number,
            "negative" if number % (ROWS // NEGATIVES) == 0 else "factual",
            reference_answer=f"reference-{number}",
        )
        for number in range(ROWS)
    ]


def silent(done: int, total: int) -> None:
    return None


async def scripts(folder: Path, split: list[Row]) -> tuple[float, int]:
    """Return the seconds and the judge's calls of answers first, grades then."""
    server = Server()
    began = time.perf_counter()
    async with httpx.AsyncClient(transport=server, base_url="http://server") as client:
        sides: tuple[Side, Side] = ("candidate", "live")
        given = await asyncio.gather(
            *(
                answer_all(client, side, split, journal=folder / side, progress=silent)
                for side in sides
            )
        )
        for side, answers in zip(sides, given, strict=True):
            # Each side alone, since equal answers share their grade where they are together.
            with Journal(folder / f"grades-{side}", Grade) as journal:
                grader = Grader(client, "judge", split, journal, AT_ONCE, Reuse())
                await asyncio.gather(*(grader.grade(side, answer) for answer in answers))
    return time.perf_counter() - began, server.grades


async def evaluation(folder: Path, split: list[Row], candidate: str) -> tuple[float, int]:
    """Return the seconds and the judge's calls of an evaluation as it is."""
    server = Server()
    models: Mapping[Side, str] = {"candidate": candidate, "live": "live"}
    began = time.perf_counter()
    async with httpx.AsyncClient(transport=server, base_url="http://server") as client:
        await Evaluation(
            split,
            models,
            {side: folder / f"{name}.jsonl" for side, name in models.items()},
            folder / "grades.jsonl",
            progress=lambda what: silent,
            judge_model="judge",
            max_concurrent=AT_ONCE,
        ).run(client, client)
    return time.perf_counter() - began, server.grades


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    split = rows()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "scripts").mkdir()
        measured = {
            "scripts": asyncio.run(scripts(folder / "scripts", split)),
            "cold": asyncio.run(evaluation(folder, split, "first")),
            "warm": asyncio.run(evaluation(folder, split, "second")),
        }
    base = measured["scripts"][0]
    found = {
        name: {"seconds": seconds, "of the scripts": seconds / base, "judge calls": calls}
        for name, (seconds, calls) in measured.items()
    }
    if options.json:
        print(json.dumps(found))
        return
    for name, each in found.items():
        goal = f" (at most {GOALS[name]:.2f})" if name in GOALS else ""
        print(
            f"{name:8} {each['seconds']:5.1f} s   {each['of the scripts']:.2f} of the scripts' "
            f"time{goal}   {each['judge calls']:,.0f} judge calls"
        )


if __name__ == "__main__":
    main()
