"""Answers and grades of one evaluation: a row is judged when it is answered, if it has to be."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

import httpx

from lora_assets.gates.evaluation import DecisionRule
from lora_assets.gates.sequential import ended, looks_at
from lora_assets.judging.answers import answer_all
from lora_assets.judging.controls import controls, measure, repeats
from lora_assets.judging.grading import Grader
from lora_assets.judging.journal import Journal, Reuse, key_of
from lora_assets.judging.slices import ALL, compare_slices
from lora_assets.records.dataset import Row
from lora_assets.records.grades import Answer, Grade, JudgeMeasure, Label, Letter, Side
from lora_assets.records.looks import Looks
from lora_assets.serving.workers import work_through

PROOFS = 5
"""Kept answers and kept grades that are asked for again before the others are taken."""

Progress = Callable[[int, int], None]
Arriving = Mapping[Side, Sequence[asyncio.Future[Answer]]]
"""Of each side a future for each row's answer."""


@dataclass(frozen=True)
class Evaluated:
    """What an evaluation found; `kept` says what of it was taken from before.

    There are grades of the rows that were `judged`: all of them, unless judging ended early.
    """

    answers: Mapping[Side, Sequence[Answer]]
    grades: Sequence[Grade]
    judged: Sequence[int]
    looks: Looks | None
    measured: JudgeMeasure | None
    kept: tuple[str, ...]


@dataclass(frozen=True)
class Evaluation:
    """The rows, and who answers and grades them.

    `models` has the serving names, `answers` the journals of each; `builds` names the server and
    the judge as they are noted, each with its URL: nothing is taken from another one. Of the
    judge's measure there are `controls` parts: a third each of answers that are right, that are
    wrong, and that are graded twice; `labels` are people's grades. `answered` gets a side whose
    answers are complete. With a `sequential` rule judging ends when the rule can decide against
    live, or never will; without, all rows are judged.
    """

    rows: Sequence[Row]
    models: Mapping[Side, str]
    answers: Mapping[Side, Path]
    grades: Path
    progress: Callable[[str], Progress]
    answered: Callable[[Side, int], None] = lambda side, count: None
    judge_model: str = ""
    builds: tuple[str, str] = ("unknown", "unknown")
    fresh: bool = False
    controls: int = 30
    labels: Sequence[Label] = ()
    sequential: DecisionRule | None = None
    max_concurrent: int = 15
    max_tokens: int = 256
    _reuse: dict[str, Reuse[Answer]] = field(default_factory=dict)

    async def run(self, server: httpx.AsyncClient, judge: httpx.AsyncClient) -> Evaluated:
        """Answer and grade every row; raise LoraAssetsError when a request fails for good.

        Answers go on when the judge fails, since they are kept.
        """
        by = f"{self.builds[1]} at {judge.base_url}"
        with Journal(self.grades, Grade, by) as journal:
            reuse: Reuse[Grade] = Reuse(self.fresh, PROOFS, by)
            grader = Grader(judge, self.judge_model, self.rows, journal, self.max_concurrent, reuse)
            arriving: Arriving = {
                side: [asyncio.get_running_loop().create_future() for _ in self.rows]
                for side in self.models
            }
            judging = asyncio.create_task(self._judge(grader, arriving))
            part = -(-self.controls // 3)
            known = controls(self.rows, part)
            cases = [(letter, each) for letter, every in known.items() for each in every]
            controlled = [
                asyncio.create_task(grader.again("candidate", answer)) for _, answer in cases
            ]
            by_people = [Answer(row=each.row, text=each.answer, latency=0) for each in self.labels]
            labelled = [
                asyncio.create_task(grader.grade("candidate", answer)) for answer in by_people
            ]
            try:
                answers = await self._answer(server, arriving)
                judged, looks = await judging
                grades = [
                    await grader.grade(side, given[row])
                    for side, given in answers.items()
                    for row in judged
                ]
                candidates = [answers["candidate"][row] for row in judged]
                own = repeats(candidates, part)
                again = await asyncio.gather(*(grader.again("candidate", each) for each in own))
                letters = [each.letter for each in await asyncio.gather(*controlled)]
                people = [each.letter for each in await asyncio.gather(*labelled)]
            finally:
                tasks = (judging, *controlled, *labelled)
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
        due: dict[Letter, list[Letter | None]] = {"A": [], "C": []}
        for (letter, _), given in zip(cases, letters, strict=True):
            due[letter].append(given)
        by_row = {each.row: each.letter for each in grades if each.side == "candidate"}
        twice = [(by_row[each.row], each.letter) for each in again]
        for path in self.answers.values():
            _whole(path).touch()
        kept = [
            said for name, used in self._reuse.items() for said in used.said(name, len(self.rows))
        ]
        kept += reuse.said("grades", len(grades))
        agreed = [(label.letter, own) for label, own in zip(self.labels, people, strict=True)]
        measured = measure(due, twice, agreed)
        return Evaluated(answers, grades, judged, looks, measured, tuple(kept))

    async def _judge(
        self, grader: Grader, arriving: Arriving
    ) -> tuple[Sequence[int], Looks | None]:
        """Return the rows that were judged, and the looks that ended it."""
        rule, rows = self.sequential if "live" in self.models else None, len(self.rows)
        progress, done = self.progress(f"{self.judge_model}: graded"), count(1)

        async def grade(case: tuple[Side, int]) -> None:
            side, row = case
            await grader.grade(side, await arriving[side][row])
            progress(next(done), len(self.models) * rows)

        order, looks = self._order(), Looks(of=rows)
        for end in looks_at(rows) if rule else [rows]:
            group = order[max((0, *looks.at)) : end]
            looks = looks.model_copy(update={"at": (*looks.at, end)})
            cases = [(side, row) for row in group for side in self.models]
            await work_through(cases, len(cases), grade)
            await grader.settle()
            if rule is None or end == rows:
                break
            grades = [
                await grader.grade(side, await arriving[side][row])
                for side in self.models
                for row in order[:end]
            ]
            (every,) = compare_slices(self.rows, {}, grades, {ALL: order[:end]})
            if why := ended(looks, every, rule.a_margin, rule.c_margin, rule.confidence):
                looks = looks.model_copy(update={"ended": why})
                break
        return sorted(order[: looks.at[-1]]), looks if rule else None

    def _order(self) -> Sequence[int]:
        """Return the rows in an order that is random and always the same."""
        return sorted(range(len(self.rows)), key=lambda row: key_of(self.rows[row].model_dump()))

    async def _answer(
        self, server: httpx.AsyncClient, arriving: Arriving
    ) -> Mapping[Side, Sequence[Answer]]:
        by = f"{self.builds[0]} at {server.base_url}"

        async def side(own: Sequence[Side]) -> Sequence[Answer]:
            first = own[0]
            # What a killed evaluation left is gone on from.
            proofs = PROOFS if _whole(self.answers[first]).exists() else 0
            reuse = self._reuse[f"answers of {' and '.join(own)}"] = Reuse(
                self.fresh, proofs, by, lambda kept, now: kept.text == now.text
            )

            def answered(answer: Answer) -> None:
                for each in own:
                    arriving[each][answer.row].set_result(answer)

            progress = self.progress(f"{first}: answered")
            progress(0, len(self.rows))
            given = await answer_all(
                server,
                self.models[first],
                self.rows,
                journal=self.answers[first],
                progress=progress,
                max_concurrent=self.max_concurrent,
                max_tokens=self.max_tokens,
                reuse=reuse,
                each=answered,
                order=self._order(),
            )
            for each in own:
                self.answered(each, len(given))
            return given

        # A candidate that is live already is asked once.
        shared: dict[str, list[Side]] = {}
        for each, name in self.models.items():
            shared.setdefault(name, []).append(each)
        gathered = await asyncio.gather(*map(side, shared.values()))
        found = dict(zip(shared, gathered, strict=True))
        return {each: found[name] for each, name in self.models.items()}


def _whole(answers: Path) -> Path:
    """Return the mark that an evaluation with these answers was finished."""
    return answers.with_suffix(".whole")
