"""Data gate: is a data version fit to train on and to be judged by?"""

from collections import Counter
from collections.abc import Mapping, Sequence

from pydantic import ValidationError

from lora_assets.errors import LoraAssetsError
from lora_assets.records.dataset import SPLITS, Row, SplitName, TrainingData
from lora_assets.records.verdict import Check, Verdict

Splits = Mapping[SplitName, Sequence[Row]]


def parse_split(name: SplitName, content: bytes, source: str) -> tuple[Row, ...]:
    """Read one split (JSON Lines, UTF-8) into rows.

    Raises LoraAssetsError naming split and line: not UTF-8, empty, a last line without its
    line end (truncated), or a row that does not have the schema.
    """
    where = f"{source}/{name}.jsonl"
    rebuild = "Build the data version again under a new name; a data version never changes."
    if not content.strip():
        raise LoraAssetsError(f"{where} is empty", rebuild)
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise LoraAssetsError(f"{where} is not UTF-8 (byte {error.start})", rebuild) from None
    if not text.endswith("\n"):
        raise LoraAssetsError(f"{where} is truncated: its last line has no end", rebuild)
    rows: list[Row] = []
    for number, line in enumerate(text.split("\n")[:-1], start=1):
        try:
            rows.append(Row.model_validate_json(line))
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            field = ".".join(map(str, first["loc"])) or "row"
            raise LoraAssetsError(
                f"{where} line {number}: {field}: {first['msg']}", rebuild
            ) from None
    return tuple(rows)


def _duplicates(splits: Splits) -> int:
    """Rows beyond the first with the same context and question, within and across splits."""
    seen = Counter((row.context, row.question) for name in SPLITS for row in splits[name])
    return sum(count - 1 for count in seen.values())


def data_is_sound(data: TrainingData, splits: Splits, decided_at: str) -> Verdict:
    """Require rows in every split, no duplicate, and negatives to train on and to judge by."""
    checks = [
        Check(name=f"rows in {name}", measured=len(splits[name]), comparison=">=", limit=1)
        for name in SPLITS
    ]
    checks += [
        Check(
            name=f"negatives in {name}",
            measured=sum(row.is_negative for row in splits[name]),
            comparison=">=",
            limit=1,
        )
        for name in SPLITS
    ]
    checks.append(
        Check(name="duplicate rows", measured=float(_duplicates(splits)), comparison="<=", limit=0)
    )
    return Verdict(
        gate="data_is_sound",
        digest=data.digest,
        data_version=data.data_version,
        data_digest=data.digest,
        checks=tuple(checks),
        decided_at=decided_at,
    )
