import random
from dataclasses import replace

import pytest

from lora_assets.embedded.data_set.aws_operations import operations
from lora_assets.embedded.data_set.questions import REFUSAL
from lora_assets.embedded.recipe.lookups import FIRST, SECOND, LookupSource, Stage


@pytest.fixture(scope="module")
def source() -> LookupSource:
    return LookupSource({name: operations(name) for name in ("dynamodb", "kafka")})


@pytest.mark.parametrize("stage", [FIRST, SECOND])
def test_the_answer_is_in_the_context_unless_the_lookup_is_of_something_absent(
    source: LookupSource, stage: Stage
) -> None:
    rng = random.Random(0)
    for _ in range(50):
        there = source.draw(replace(stage, absent=0.0), rng)
        assert there.answer.strip() in there.prompt.rpartition("\n\n")[0]
        assert source.draw(replace(stage, absent=1.0), rng).answer.strip() == REFUSAL


def test_the_same_random_state_draws_the_same_lookup(source: LookupSource) -> None:
    drawn = [source.draw(SECOND, random.Random(f"1 {step}")) for step in range(5)]
    assert drawn == [source.draw(SECOND, random.Random(f"1 {step}")) for step in range(5)]
    assert len(set(drawn)) == 5
