"""Which other data versions a candidate is evaluated on."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from lora_assets.assets.comparison import Comparison
from lora_assets.assets.other_splits import compared, other_splits
from lora_assets.errors import LoraAssetsError
from lora_assets.gates.evaluation import DecisionRule
from lora_assets.judging.evaluation import Evaluated
from lora_assets.parameters import EvalOptions
from lora_assets.records.grades import Answer, Side
from lora_assets.resources.data_bucket import DataBucket
from tests.support.records import answers, grades, model_version
from tests.support.rows import make_line, make_row


def bucket(folder: Path, **eval_rows: int) -> DataBucket:
    """Data versions by how many rows of eval they have, after that number."""
    made = DataBucket(uri=folder.as_uri())
    for name, rows in eval_rows.items():
        content = "".join(f"{make_line(rows * 100 + n)}\n" for n in range(rows)).encode()
        made.add(name.removeprefix("v"), {"train": content, "val": content, "eval": content})
    return made


def found(
    data: DataBucket, named: str, live: str | None = "1", rule: str = "specification"
) -> tuple[dict[str, int], tuple[str, ...]]:
    """The rows of each split that is evaluated beside that of data version 2."""
    read, splits = data.read("2")
    version = model_version().model_copy(update={"data_version": live})
    comparison = Comparison(model_version(), version if live else None, read, splits["eval"], {})
    names = EvalOptions(also_evaluate=named).other_versions
    others, lacking = other_splits(names, comparison, DecisionRule(decision_rule=rule), data)
    return {name: len(rows) for name, rows in others.items()}, lacking


def test_lives_own_data_version_is_evaluated_and_what_is_named_beside_it(tmp_path: Path) -> None:
    data = bucket(tmp_path, v1=3, v2=4, v3=5)
    assert found(data, "live") == ({"1": 3}, ())
    assert found(data, "live, 3,2") == ({"1": 3, "3": 5}, ())
    assert found(data, "3") == ({"3": 5}, ())
    assert found(data, "none") == ({}, ())


def test_nothing_is_forgotten_where_nothing_is_live_or_live_had_the_same_rows(
    tmp_path: Path,
) -> None:
    data = bucket(tmp_path, v1=4, v2=4, v3=5)
    assert found(data, "live,3", live=None) == ({}, ())
    assert found(data, "live", live="2") == ({}, ())
    assert found(data, "live") == ({}, ())


def test_data_of_live_that_are_gone_are_named_and_others_refused(tmp_path: Path) -> None:
    data = bucket(tmp_path, v2=4)
    rows, (lacking,) = found(data, "live")
    assert rows == {}
    assert lacking.startswith("data version 1 of live is not in the bucket")
    assert found(data, "none") == ({}, ())
    with pytest.raises(LoraAssetsError, match="Data version 3 has no"):
        found(data, "3")


def test_a_split_that_the_rule_paired_can_not_decide_on_is_refused_by_name(tmp_path: Path) -> None:
    data = bucket(tmp_path, v1=3, v2=4)
    with pytest.raises(LoraAssetsError, match="split of data version 1 is too small for the rule"):
        found(data, "live", rule="paired")


def test_both_sides_are_compared_on_its_rows(tmp_path: Path) -> None:
    rows = [make_row(number) for number in range(3)]
    same = answers(*"xxx")
    given = [*grades("candidate", "ACA"), *grades("live", "AAB")]
    sides: dict[Side, Sequence[Answer]] = {"candidate": same, "live": same}
    other = compared("1", rows, Evaluated(sides, given, range(3), None, None, ()))
    assert other.every.name == "data version 1"
    assert (other.every.a.only_candidate, other.every.a.only_live) == ((2,), (1,))
    assert other.every.c.only_candidate == (1,)
