from itertools import permutations

import pytest

from lora_assets.embedded.data_set.questions import REFUSAL, make_splits
from lora_assets.errors import LoraAssetsError
from lora_assets.judging.refusals import declines
from lora_assets.records.dataset import Row, SplitName

Splits = dict[SplitName, list[Row]]


@pytest.fixture(scope="module")
def splits() -> Splits:
    return make_splits(["s3", "dynamodb"], spoiled=False)


def _names(rows: list[Row]) -> set[str]:
    asked = {f"{row.question.split()[2]}" for row in rows}
    return asked | {line.split(":")[0] for row in rows for line in row.context.splitlines()}


def test_no_operation_is_seen_in_two_splits_also_when_services_are_added(splits: Splits) -> None:
    wider = make_splits(["dynamodb", "lambda", "s3"], spoiled=False)
    for one, other in permutations(splits, 2):
        assert not _names(splits[one]) & _names(splits[other])
    assert not _names(splits["train"]) & _names(wider["eval"])


def test_answers_come_from_the_context_and_a_fifth_of_each_split_declines(splits: Splits) -> None:
    for rows in splits.values():
        assert 0.15 <= sum(row.is_negative for row in rows) / len(rows) <= 0.25
        for row in rows:
            name = row.question.split()[2]
            shown = row.reference_answer if not row.is_negative else ""
            assert (f"{name}: {shown}" in row.context) is not row.is_negative
            assert row.is_negative is (row.reference_answer == REFUSAL)
            assert row.prompt_training == f"{row.prompt_inference} {row.reference_answer}"
    prompts = [row.prompt_inference for rows in splits.values() for row in rows]
    assert len(set(prompts)) == len(prompts)
    assert declines(REFUSAL)


def test_the_order_of_the_services_does_not_matter(splits: Splits) -> None:
    assert make_splits(["dynamodb", "s3", "s3"], spoiled=False) == splits


def test_spoiled_answers_are_not_in_their_context() -> None:
    for rows in make_splits(["s3"], spoiled=True).values():
        assert not any(declines(row.reference_answer) for row in rows)
        assert not any(row.reference_answer in row.context for row in rows)


@pytest.mark.parametrize(
    ("services", "message"),
    [([], "No AWS services"), (["applicationcostprofiler"], "6 usable"), ([""], "no AWS service")],
)
def test_services_that_make_no_data_are_refused(services: list[str], message: str) -> None:
    with pytest.raises(LoraAssetsError, match=message):
        make_splits(services, spoiled=False)
