"""People's grades, and how far the judge agrees with them."""

from collections import Counter
from collections.abc import Sequence

from pydantic import ValidationError

from lora_assets.errors import LoraAssetsError, validation_line
from lora_assets.records.grades import Label, Letter

LABELS = "judge-labels.jsonl"


def parse_labels(content: bytes, rows: int, source: str) -> Sequence[Label]:
    """Return the labels of JSON Lines `{"row", "answer", "letter"}` for a split of `rows` rows.

    Raise LoraAssetsError naming the line that is none.
    """
    labels = []
    for number, line in enumerate(content.split(b"\n"), start=1):
        if not line.strip():
            continue
        try:
            label, fault = Label.model_validate_json(line), ""
        except ValidationError as error:
            label, fault = None, validation_line(error)
        if label is None or not 0 <= label.row < rows:
            raise LoraAssetsError(
                f"{source} line {number}: {fault or f'row is not one of 0 to {rows - 1}'}",
                "Correct it, or remove the file: without it nothing is compared with people.",
            )
        labels.append(label)
    return labels


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
