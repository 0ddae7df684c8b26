"""How often the evaluation gate passes what it should, and what it should not, by simulation.

    python -m benchmarks.gates [--draws 1000] [--json]

Every draw is an evaluation, decided by the gate itself under both rules. Live is at A 88 %, C 5 %
on the answerable rows and declines 97 % of the negatives, which get an A for it and else a C. A
share of the candidate's answers is that of live, with its grade; the others are drawn anew, such
that the candidate's rates over all rows are as much worse or better as the case says. The rule
`paired` decides once on all rows and once sequentially, on as many as it wants; then the judge's
calls are counted, with live's grades kept from before (warm) and without (cold).
"""

import argparse
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np
from numpy.typing import NDArray

from lora_assets.gates.evaluation import EvalThresholds, eval_gate
from lora_assets.gates.sequential import ended, looks_at
from lora_assets.records import Record
from lora_assets.records.grades import Differing, EvalGrades, Letter, Scores, Slice
from lora_assets.records.looks import Looks

LETTERS: tuple[Letter, ...] = ("A", "B", "C")
A_RATE, C_RATE, REFUSALS = 0.88, 0.05, 0.97
SEED = 16

Letters = NDArray[np.int_]
Flags = NDArray[np.bool_]


class Case(Record):
    """How a candidate differs from live, in shares of all graded rows, or of the negatives."""

    name: str
    a: float = 0.0
    c: float = 0.0
    refusals: float = 0.0


CASES = (
    Case(name="equal"),
    Case(name="better (A +2 pp, C -1 pp)", a=0.02, c=-0.01),
    Case(name="A 1 pp worse", a=-0.01),
    Case(name="A worse by its margin (3 pp)", a=-0.03),
    Case(name="C worse by its margin (2 pp)", c=0.02),
    Case(name="refusals worse by their margin (5 pp)", refusals=-0.05),
    Case(name="A 8 pp worse", a=-0.08),
)
ALIKE = (0.5, 0.8)
MOST_CALLS: Mapping[str, int] = {
    "equal": 700,
    "better (A +2 pp, C -1 pp)": 700,
    "A 8 pp worse": 250,
}
"""The judge's calls that half of the evaluations may take, of 2,400, where live is warm."""
SIZES = ((200, 40), (400, 80), (700, 140), (1000, 200), (2000, 400))
"""Answerable rows and negatives."""


@dataclass(frozen=True)
class Draw:
    """One evaluation: both sides' letters by row, the negatives last, and who declines those.

    Of `same` rows the candidate's answer is that of live. Rows are judged in their `order`.
    """

    ours: Letters
    theirs: Letters
    refuses: Flags
    refused: Flags
    same: Flags
    order: Letters

    def slice(self, judged: Letters) -> Slice:
        ours, theirs = self.ours[judged], self.theirs[judged]
        return Slice(
            name="all rows",
            a=differing(ours == 0, theirs == 0),
            c=differing(ours == 2, theirs == 2),
            refusals=differing(self.refuses, self.refused),
        )

    def grades(self, looks: Looks | None) -> EvalGrades:
        """Return what the gate gets: of all rows, or of those judged by the last look."""
        judged = self.order[: looks.at[-1] if looks else None]
        return EvalGrades(
            model_version=2,
            digest="c" * 64,
            live_digest="l" * 64,
            data_version="2",
            data_digest="e" * 64,
            mlflow_run_id="run",
            judge_model="simulated",
            looks=looks,
            candidate=scores(self.ours[judged], self.refuses),
            live=scores(self.theirs[judged], self.refused),
            slices=(self.slice(judged),),
        )

    def looks(self, rule: EvalThresholds) -> Looks:
        looks = Looks(of=len(self.order))
        for end in looks_at(looks.of):
            looks = looks.model_copy(update={"at": (*looks.at, end)})
            every = self.slice(self.order[:end])
            if why := ended(looks, every, rule.a_margin, rule.c_margin, rule.confidence):
                return looks.model_copy(update={"ended": why if end < looks.of else ""})
        return looks


def draw(
    rng: np.random.Generator, case: Case, alike: float, answerable: int, negatives: int
) -> Draw:
    spread = (answerable + negatives) / answerable / (1 - alike)
    live = rng.choice(3, answerable, p=(A_RATE, 1 - A_RATE - C_RATE, C_RATE))
    c_rate = max(C_RATE + case.c * spread, 0.0)
    b_rate = max(1 - A_RATE - case.a * spread - c_rate, 0.0)
    own = rng.choice(3, answerable, p=(1 - b_rate - c_rate, b_rate, c_rate))
    same = rng.random(answerable + negatives) < alike
    candidate = np.where(same[:answerable], live, own)
    refused = rng.random(negatives) < REFUSALS
    anew = rng.random(negatives) < REFUSALS + case.refusals / (1 - alike)
    refuses = np.where(same[answerable:], refused, anew)
    return Draw(
        ours=np.concatenate([candidate, np.where(refuses, 0, 2)]),
        theirs=np.concatenate([live, np.where(refused, 0, 2)]),
        refuses=refuses,
        refused=refused,
        same=same,
        order=rng.permutation(answerable + negatives),
    )


def differing(ours: Flags, theirs: Flags) -> Differing:
    return Differing(
        rows=len(ours),
        only_candidate=tuple(np.flatnonzero(ours & ~theirs).tolist()),
        only_live=tuple(np.flatnonzero(theirs & ~ours).tolist()),
    )


def scores(letters: Letters, refused: Flags) -> Scores:
    return Scores(
        letters={letter: int((letters == number).sum()) for number, letter in enumerate(LETTERS)},
        ungraded=0,
        negatives=len(refused),
        refusals=int(refused.sum()),
    )


def outcomes(
    case: Case, alike: float, draws: int, size: tuple[int, int]
) -> Mapping[str, Mapping[str, float]]:
    """Return the share of draws with each outcome by rule, and the judge's calls if sequential."""
    rng = np.random.default_rng(SEED)
    paired = EvalThresholds(decision_rule="paired")
    names = ("specification", "paired", "sequential", "measures", "ended")
    counted: dict[str, Counter[str]] = {name: Counter() for name in names}
    calls: dict[str, list[int]] = {"warm": [], "cold": []}
    for _ in range(draws):
        drawn = draw(rng, case, alike, *size)
        verdict = eval_gate(drawn.grades(None), paired, "")
        counted["paired"][verdict.outcome] += 1
        said = verdict.notes[-1].removeprefix("by the rule specification: ")
        counted["specification"][said.partition(";")[0]] += 1
        counted["measures"].update(
            each.measure for each in verdict.paired if each.state == "non-inferior"
        )
        looks = drawn.looks(paired)
        counted["sequential"][eval_gate(drawn.grades(looks), paired, "").outcome] += 1
        counted["ended"][looks.ended or "all rows"] += 1
        judged = drawn.order[: looks.at[-1]]
        calls["warm"].append(int((~drawn.same[judged]).sum()))
        calls["cold"].append(len(judged) + calls["warm"][-1])
    return {
        **{
            name: {key: count / draws for key, count in sorted(counts.items())}
            for name, counts in counted.items()
        },
        "judge calls, median": {name: median(of) for name, of in calls.items()},
    }


def by_case(draws: int) -> Sequence[Mapping[str, object]]:
    return [
        {"candidate": case.name, "alike": alike, **outcomes(case, alike, draws, (1000, 200))}
        for alike in ALIKE
        for case in CASES
    ]


def by_size(draws: int) -> Sequence[Mapping[str, object]]:
    return [
        {"rows": sum(size), "negatives": size[1], "alike": alike}
        | dict(outcomes(CASES[0], alike, draws, size))
        for alike in ALIKE
        for size in SIZES
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--draws", type=int, default=1000)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    measured = {"cases": by_case(arguments.draws), "sizes": by_size(arguments.draws // 2)}
    if arguments.json:
        print(json.dumps({"draws": arguments.draws, **measured}, indent=2))
        return
    for name, rows in measured.items():
        print(name)
        for row in rows:
            print("  " + "; ".join(f"{key} {_shown(value)}" for key, value in row.items()))
    goals = ", ".join(f"{name} {calls}" for name, calls in MOST_CALLS.items())
    print(f"judge calls wanted, warm: {goals}")


def _shown(value: object) -> str:
    if not isinstance(value, Mapping):
        return str(value)
    return ", ".join(
        f"{key} {share:.1%}" if share <= 1 else f"{key} {share:,.0f}"
        for key, share in value.items()
    )


if __name__ == "__main__":
    main()
