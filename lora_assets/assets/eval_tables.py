"""An evaluation as tables, in MLflow and in Dagster's UI."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from lora_assets.assets.pages import Rows, Table, sides_rows, table
from lora_assets.records.dataset import Row
from lora_assets.records.grades import Answer, Differing, EvalGrades, Grade, Scores, Side, Slice
from lora_assets.resources.tracked_run import TrackedRun

GRADES, SLICES = "grades", "slices"
"""Tables in MLflow."""

SHOWN_EXAMPLES = 10
_UNGRADED = "ungraded"
_RANKS = ("A", "B", "C", _UNGRADED)
"""From the best on: an answer that could not be graded ranks below a C."""


def log_grades(
    run: TrackedRun,
    rows: Sequence[Row],
    answers: Mapping[Side, Sequence[Answer]],
    grades: Sequence[Grade],
    counted: Mapping[Side, Scores],
    slices: Sequence[Slice] = (),
) -> None:
    """Log each side's rates, a line per row with what each side said and got, one per slice."""
    run.metrics(rates(counted))
    lines: dict[int, dict[str, Any]] = {}
    for grade in sorted(grades, key=lambda grade: (grade.row, grade.side)):
        row = rows[grade.row]
        known = {"question": row.question, "reference_answer": row.reference_answer}
        empty = {f"{s}_{name}": "" for s in answers for name in ("grade", "answer", "reason")}
        line = lines.setdefault(grade.row, {"row": grade.row, **known, **empty})
        line[f"{grade.side}_grade"] = grade.letter or _UNGRADED
        line[f"{grade.side}_answer"] = answers[grade.side][grade.row].text
        line[f"{grade.side}_reason"] = grade.reason
    run.table([*lines.values()], GRADES)
    if slices:
        run.table([*slice_lines(slices)], SLICES)


def rates(counted: Mapping[Side, Scores]) -> Mapping[str, float]:
    """Return each side's rates (shares of 1) by name; one that is missing stays missing."""
    named = {
        f"{side}_{name}": getattr(score, name)
        for side, score in counted.items()
        for name in ("a_rate", "c_rate", "refusal_rate", "ungraded_rate")
    }
    return {name: rate for name, rate in named.items() if rate is not None}


def headline(counted: Mapping[Side, Scores]) -> Sequence[str]:
    """Return the candidate's three rates beside live's."""
    live = _measures(counted["live"]) if "live" in counted else {}
    return [
        f"{name} {rate}" + (f" (live {live[name]})" if live else "")
        for name, rate in [*_measures(counted["candidate"]).items()][:3]
    ]


def shown_of(
    grades: EvalGrades, counted: Mapping[Side, Scores], resolution: Sequence[str]
) -> dict[str, Any]:
    """Return what the asset's page shows of an evaluation; `resolution` is what it can show."""
    others = [each.every for each in grades.others]
    return {
        "judge": grades.judge_model,
        "judge measured": str(grades.measured or "the judge was not measured"),
        **({"kept": "; ".join(grades.kept)} if grades.kept else {}),
        **({"judged": str(grades.looks)} if grades.looks else {}),
        "scores": scores_table(counted),
        "what the eval split can show": "; ".join(resolution),
        **({"by slice": table(slice_lines(grades.slices))} if grades.slices else {}),
        **({"other data": table(slice_lines(others))} if others else {}),
    }


def scores_table(counted: Mapping[Side, Scores]) -> Table:
    """Return a row per count or rate, a column per side."""
    return table(sides_rows({side: _measures(score) for side, score in counted.items()}))


def slice_lines(slices: Iterable[Slice]) -> Rows:
    """Return a row per slice: how many rows it has, and on how many one side alone has a letter."""

    def gained_and_lost(rows: Differing) -> str:
        return f"+{len(rows.only_candidate)} -{len(rows.only_live)}"

    return [
        {
            "slice": each.name,
            "rows": each.a.rows,
            "A": gained_and_lost(each.a),
            "C": gained_and_lost(each.c),
            "refusals": gained_and_lost(each.refusals),
        }
        for each in slices
    ]


def examples_table(
    rows: Sequence[Row], answers: Mapping[Side, Sequence[Answer]], grades: Sequence[Grade]
) -> Table:
    """Return the rows on which the sides differ most (A against C first), or that went worst.

    Each has a line for each text: side by side they are too narrow to be read at 1,600 pixels.
    """
    letters: dict[int, dict[str, str]] = {}
    for grade in grades:
        letters.setdefault(grade.row, {})[grade.side] = grade.letter or _UNGRADED

    def advantage(row: int) -> int:
        """Return by how many letters the candidate is better than live; 0 without live."""
        candidate = letters[row]["candidate"]
        return _RANKS.index(letters[row].get("live", candidate)) - _RANKS.index(candidate)

    def order(row: int) -> tuple[int, int]:
        return abs(advantage(row)), _RANKS.index(letters[row]["candidate"])

    def compared(row: int) -> str:
        if "live" not in letters[row]:
            return "alone"
        return "better" if advantage(row) > 0 else "worse" if advantage(row) else "level"

    def lines(row: int) -> Iterable[tuple[str, str]]:
        yield "question", rows[row].question
        yield "reference", rows[row].reference_answer
        for side, given in answers.items():
            yield side, given[row].text.strip()

    return table(
        {
            "candidate is": compared(row) if what == "question" else "",
            "what": what,
            "grade": letters[row].get(what, ""),
            "text": text,
        }
        for row in sorted(letters, key=order, reverse=True)[:SHOWN_EXAMPLES]
        for what, text in lines(row)
    )


def _measures(score: Scores) -> Mapping[str, str]:
    shares = {"A-rate": score.a_rate, "C-rate": score.c_rate, "refusal rate": score.refusal_rate}
    return {
        **{name: "missing" if rate is None else f"{rate:.1%}" for name, rate in shares.items()},
        **{f"graded {letter}": str(count) for letter, count in score.letters.items()},
        "ungraded": str(score.ungraded),
        "refusals": f"{score.refusals} of {score.negatives}",
    }
