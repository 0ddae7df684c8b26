"""An evaluation as tables, in MLflow and in Dagster's UI."""

from collections.abc import Mapping, Sequence

import dagster as dg

from lora_assets.records.dataset import Row
from lora_assets.records.evaluation import Answer, Grade, Scores, Side
from lora_assets.resources.tracking import TrackedRun

SHOWN_EXAMPLES = 10


def log_grades(
    run: TrackedRun,
    rows: Sequence[Row],
    answers: Mapping[Side, Sequence[Answer]],
    grades: Sequence[Grade],
    counted: Mapping[Side, Scores],
) -> None:
    """Each side's rates and every grade, in the MLflow run."""
    for side, score in counted.items():
        rates = {
            "a_rate": score.a_rate,
            "c_rate": score.c_rate,
            "refusal_rate": score.refusal_rate,
            "ungraded_rate": score.ungraded_rate,
        }
        run.metrics({f"{side}_{name}": rate for name, rate in rates.items() if rate is not None})
    run.table(
        [
            {
                "row": grade.row,
                "side": grade.side,
                "question": rows[grade.row].question,
                "reference_answer": rows[grade.row].reference_answer,
                "answer": answers[grade.side][grade.row].text,
                "grade": grade.letter or "ungraded",
                "reason": grade.reason,
            }
            for grade in grades
        ],
        "grades",
    )


def scores_table(counted: Mapping[Side, Scores]) -> dg.TableMetadataValue:
    """One row per side: its letters and refusals."""
    return dg.MetadataValue.table(
        [
            dg.TableRecord(
                {
                    "side": side,
                    **{letter: count for letter, count in score.letters.items()},
                    "ungraded": score.ungraded,
                    "refusals": f"{score.refusals} of {score.negatives}",
                }
            )
            for side, score in counted.items()
        ]
    )


def examples_table(
    rows: Sequence[Row], answers: Mapping[Side, Sequence[Answer]], grades: Sequence[Grade]
) -> dg.TableMetadataValue:
    """The rows on which the sides differ most (A against C first), or that went worst."""
    letters: dict[int, dict[Side, str]] = {}
    for grade in grades:
        letters.setdefault(grade.row, {})[grade.side] = grade.letter or "ungraded"

    def difference(row: int) -> tuple[int, str]:
        ranks = ["ABC".find(letter) for letter in letters[row].values()]
        return max(ranks) - min(ranks), letters[row]["candidate"]

    most = sorted(letters, key=difference, reverse=True)[:SHOWN_EXAMPLES]
    return dg.MetadataValue.table(
        [
            dg.TableRecord(
                {
                    "question": rows[row].question,
                    "reference": rows[row].reference_answer,
                    **{
                        key: value
                        for side, given in answers.items()
                        for key, value in (
                            (f"{side} grade", letters[row][side]),
                            (f"{side} answer", given[row].text.strip()),
                        )
                    },
                }
            )
            for row in most
        ]
    )
