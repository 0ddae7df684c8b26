"""Candidate and live row by row, over all rows and by the metadata of the rows."""

from collections.abc import Callable, Iterable, Mapping, Sequence

from lora_assets.errors import LoraAssetsError
from lora_assets.judging.refusals import declines
from lora_assets.records.dataset import Row
from lora_assets.records.grades import Answer, Differing, Grade, Letter, Side, Slice

ALL = "all rows"
MOST_VALUES = 50
"""Of one key: more are no groups of rows but their names."""


def slice_rows(rows: Sequence[Row], keys: Iterable[str]) -> Mapping[str, Sequence[int]]:
    """Return the rows of each slice, by "key=value"; all of them first.

    Raise LoraAssetsError for a key that no row's metadata have, or that tells all rows apart.
    """
    slices: dict[str, list[int]] = {ALL: list(range(len(rows)))}
    for key in keys:
        values = [row.metadata.model_dump().get(key) for row in rows]
        given = {str(value) for value in values if value is not None}
        if not given or len(given) > MOST_VALUES:
            raise LoraAssetsError(
                f"The eval split can't be sliced by {key!r}: its rows have {len(given)} values",
                f"Name keys of metadata with 1 to {MOST_VALUES} values in --slices.",
            )
        for number, value in enumerate(values):
            slices.setdefault(f"{key}={'none' if value is None else value}", []).append(number)
    return slices


def compare_slices(
    rows: Sequence[Row],
    answers: Mapping[Side, Sequence[Answer]],
    grades: Sequence[Grade],
    slices: Mapping[str, Sequence[int]],
) -> tuple[Slice, ...]:
    """Return where candidate and live differ in each slice."""
    letters: dict[Side, dict[int, Letter]] = {"candidate": {}, "live": {}}
    for grade in grades:
        if grade.letter is not None:
            letters[grade.side][grade.row] = grade.letter
    declined: dict[Side, set[int]] = {"candidate": set(), "live": set()}
    for side, given in answers.items():
        declined[side] = {a.row for a in given if rows[a.row].is_negative and declines(a.text)}
    graded = letters["candidate"].keys() & letters["live"].keys()

    def compare(numbers: Iterable[int], has: Callable[[Side, int], bool]) -> Differing:
        counted = sorted(numbers)
        ours = {number for number in counted if has("candidate", number)}
        theirs = {number for number in counted if has("live", number)}
        return Differing(
            rows=len(counted),
            only_candidate=tuple(sorted(ours - theirs)),
            only_live=tuple(sorted(theirs - ours)),
        )

    return tuple(
        Slice(
            name=name,
            a=compare(graded & set(own), lambda side, row: letters[side][row] == "A"),
            c=compare(graded & set(own), lambda side, row: letters[side][row] == "C"),
            refusals=compare(
                (row for row in own if rows[row].is_negative),
                lambda side, row: row in declined[side],
            ),
        )
        for name, own in slices.items()
    )
