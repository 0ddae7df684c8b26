"""People's grades, and how far the judge agrees with them."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from statistics import mean, variance

from pydantic import ValidationError

from lora_assets.errors import LoraAssetsError, validation_line
from lora_assets.records.grades import Answer, Corrected, Grade, Label, Letter, Side

LABELS = "judge-labels.jsonl"


def parse_labels(content: bytes, rows: int, source: str) -> Sequence[Label]:
    """Return the labels of JSON Lines `{"row", "answer", "letter"}` for a split of `rows` rows.

    Raise LoraAssetsError naming the line that is none.
    """
    labels: list[Label] = []
    letters: dict[tuple[int, str], Letter] = {}
    for number, line in enumerate(content.split(b"\n"), start=1):
        if not line.strip():
            continue
        try:
            label, fault = Label.model_validate_json(line), ""
        except ValidationError as error:
            label, fault = None, validation_line(error)
        if label is not None and not 0 <= label.row < rows:
            fault = f"row is not one of 0 to {rows - 1}"
        elif label and letters.setdefault((label.row, label.answer), label.letter) != label.letter:
            fault = "the same answer has another letter before"
        if label is None or fault:
            raise LoraAssetsError(
                f"{source} line {number}: {fault}",
                "Correct it, or remove the file: without it nothing is compared with people.",
            )
        labels.append(label)
    return labels


def corrected(
    answers: Mapping[Side, Sequence[Answer]], grades: Sequence[Grade], labels: Sequence[Label]
) -> tuple[Corrected, ...]:
    """Return the differences in A-rate and C-rate as people would have graded; none of one label.

    Prediction-powered inference (Angelopoulos et al., Science 382, 2023, 669-674) on the paired
    differences: to what the judge gives on all rows comes by how much people's grades differ from
    it, on the rows of which they graded both answers. Where both answers are the same nothing can
    differ; of the other rows, those that people graded must be a random sample.
    """
    given = {(each.row, each.answer): each.letter for each in labels}
    letters = {(each.side, each.row): each.letter for each in grades if each.letter is not None}
    rows = [row for side, row in letters if side == "candidate" and ("live", row) in letters]
    texts = {row: (answers["candidate"][row].text, answers["live"][row].text) for row in rows}
    differing = [row for row in rows if texts[row][0] != texts[row][1]]
    graded = [row for row in differing if all((row, text) in given for text in texts[row])]
    if len(graded) < 2:
        return ()
    share, found = len(differing) / len(rows), []
    for measure, letter in (("a_rate", "A"), ("c_rate", "C")):
        judge = {
            row: (letters["candidate", row] == letter) - (letters["live", row] == letter)
            for row in rows
        }
        off = []
        for row in graded:
            ours, theirs = (given[row, text] == letter for text in texts[row])
            off.append(ours - theirs - judge[row])
        error = variance(judge.values()) / len(rows) + share**2 * variance(off) / len(graded)
        found.append(
            Corrected(
                measure=measure,
                estimate=mean(judge.values()) + share * mean(off),
                error=math.sqrt(error),
                rows=len(graded),
            )
        )
    return tuple(found)


def kappa(pairs: Sequence[tuple[Letter, Letter | None]]) -> float | None:
    """Return Cohen's kappa (1960) of two graders: 1 agrees always, 0 as often as by chance.

    None where both always gave one and the same letter, or there is nothing to compare.
    """
    count = len(pairs)
    if not count:
        return None
    first, second = (Counter(side) for side in zip(*pairs, strict=True))
    chance = sum(first[letter] * second[letter] for letter in first) / count**2
    if chance == 1:
        return None
    agreed = sum(one == other for one, other in pairs) / count
    return (agreed - chance) / (1 - chance)
