"""Answers, grades, and what they add up to."""

from collections.abc import Mapping
from typing import Literal

from lora_assets.records import Measurement, Record
from lora_assets.records.looks import Looks

Side = Literal["candidate", "live"]
Letter = Literal["A", "B", "C"]


class Answer(Record):
    """What one adapter said to one row of the eval split; `latency` in seconds."""

    row: int
    text: str
    latency: float


class Grade(Record):
    """The judge's letter for one answer; None where no readable grade came back."""

    row: int
    side: Side
    letter: Letter | None
    reason: str


class Scores(Record):
    """One side's grades, counted. Rates are shares of 1; None where nothing was counted.

    A-rate and C-rate are shares of the graded answers; the refusal rate is the share of
    the negatives whose answer declined.
    """

    letters: Mapping[Letter, int]
    ungraded: int
    negatives: int
    refusals: int

    @property
    def graded(self) -> int:
        return sum(self.letters.values())

    @property
    def a_rate(self) -> float | None:
        return self.letters["A"] / self.graded if self.graded else None

    @property
    def c_rate(self) -> float | None:
        return self.letters["C"] / self.graded if self.graded else None

    @property
    def refusal_rate(self) -> float | None:
        return self.refusals / self.negatives if self.negatives else None

    @property
    def ungraded_rate(self) -> float | None:
        total = self.graded + self.ungraded
        return self.ungraded / total if total else None


class Label(Record):
    """A person's letter for an answer to a row of the eval split; rows count from 0."""

    row: int
    answer: str
    letter: Letter


class JudgeMeasure(Record):
    """How the judge did on answers whose grade is known, and on answers that it graded twice.

    `a_due` are references as answers, of which it gave `a_given` an A. `c_due` are references of
    other rows as answers, of which it gave `c_given` a C. Rates are shares of 1. `kappa` is its
    agreement with people on the `labelled` answers (Cohen), None where chance alone agrees.
    """

    a_due: int
    a_given: int
    c_due: int
    c_given: int
    twice: int
    alike: int
    labelled: int = 0
    kappa: float | None = None

    @property
    def sensitivity(self) -> float | None:
        return self.a_given / self.a_due if self.a_due else None

    @property
    def specificity(self) -> float | None:
        return self.c_given / self.c_due if self.c_due else None

    @property
    def accuracy(self) -> float | None:
        """Return the mean of both (balanced accuracy): 0.5 for a judge that always says A."""
        if self.sensitivity is None or self.specificity is None:
            return None
        return (self.sensitivity + self.specificity) / 2

    def __str__(self) -> str:
        return (
            f"the judge gave {self.a_given} of {self.a_due} right answers an A, "
            f"{self.c_given} of {self.c_due} wrong ones a C, and {self.alike} of {self.twice} "
            f"answers the same letter twice{self._agreement}"
        )

    @property
    def _agreement(self) -> str:
        if not self.labelled:
            return ""
        kappa = "undefined" if self.kappa is None else f"{self.kappa:.2f}"
        return f"; its kappa with people is {kappa}, on {self.labelled} answers"


class Corrected(Record):
    """A difference of candidate and live as people would have graded it, in shares of 1.

    `rows` are those on which people graded both answers; `error` is the standard error.
    """

    measure: str
    estimate: float
    error: float
    rows: int

    def __str__(self) -> str:
        return (
            f"{self.measure} {self.estimate:+.3f} against live by people's grades "
            f"(prediction-powered, standard error {self.error:.3f}, {self.rows} rows graded)"
        )


class Differing(Record):
    """The rows that count for one measure on both sides, and those where one side alone has it."""

    rows: int
    only_candidate: tuple[int, ...] = ()
    only_live: tuple[int, ...] = ()


class Slice(Record):
    """What both sides did on the same rows: all of them, or those with one value of a key.

    An A or a C on the rows that both got a letter for, a refusal on the negatives.
    """

    name: str
    a: Differing
    c: Differing
    refusals: Differing


class OtherSplit(Record):
    """What both sides did on the eval split of another data version, which names `every`."""

    every: Slice
    looks: Looks | None = None


class EvalGrades(Measurement):
    """What the `eval_grades` asset stands for: both sides' scores, and the judge of both.

    `looks` are those of sequential judging, None where all rows were judged at once.
    `slices` compare the sides row by row, all rows first; there are none without live.
    `unread` is what the judge said of an answer to which it gave no readable grade. `measured`
    is None where the judge was not; `kept` says what was taken from before. `others` are splits
    that tell what the candidate forgot, `lacking` says why live's own is not among them.
    Records of earlier releases have no `judge_url`.
    `corrected` are the differences by people's grades, where there are some.
    """

    judge_model: str
    judge_url: str | None = None
    unread: str = ""
    measured: JudgeMeasure | None = None
    kept: tuple[str, ...] = ()
    looks: Looks | None = None
    candidate: Scores
    live: Scores | None
    slices: tuple[Slice, ...] = ()
    corrected: tuple[Corrected, ...] = ()
    others: tuple[OtherSplit, ...] = ()
    lacking: tuple[str, ...] = ()
