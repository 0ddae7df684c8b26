"""When a served base model counts as the trained one."""

import pytest

from lora_assets.records.base_model import PROMPTS, Base, NextToken, bare
from lora_assets.serving.base_proof import is_told, other_answers, other_files

ANSWERS = tuple(NextToken(text=f"t{n}", logprob=-n / 10) for n in range(24))


def served(equal: int = 24, apart: float = 0.0) -> list[NextToken]:
    return [
        NextToken(text=each.text if n < equal else "other", logprob=each.logprob + apart)
        for n, each in enumerate(ANSWERS)
    ]


def test_there_are_as_many_prompts_as_were_measured() -> None:
    assert len(set(PROMPTS)) == 24


@pytest.mark.parametrize(("equal", "apart"), [(24, 8e-6), (24, 0.017), (23, 0.144), (18, 0.25)])
def test_the_same_weights_in_another_precision_pass(equal: int, apart: float) -> None:
    assert other_answers(ANSWERS, served(equal, apart)) is None


@pytest.mark.parametrize(
    ("equal", "apart", "words"),
    [(13, 0.1, "13 of 24"), (0, 0.0, "0 of 24"), (24, 0.3, "0.3 apart"), (24, float("nan"), "nan")],
)
def test_other_weights_are_told_by_their_numbers(equal: int, apart: float, words: str) -> None:
    assert words in str(other_answers(ANSWERS, served(equal, apart)))


@pytest.mark.parametrize(
    ("trained", "told", "decides", "same"),
    [
        ("a" * 64, "a" * 64, True, True),
        ("a" * 64, "b" * 64, True, False),
        ("a" * 40, "a" * 40, True, True),
        ("a" * 40, "b" * 40, False, None),
        ("a" * 64, "b" * 40, False, None),
        ("a" * 64, "", False, None),
    ],
)
def test_two_digests_decide_and_two_commits_only_where_they_are_equal(
    trained: str, told: str, decides: bool, same: bool | None
) -> None:
    base = Base(identity=trained)
    assert is_told(base, told) == decides
    if decides:
        assert (other_files(base, told) is None) == same


@pytest.mark.parametrize("text", [" the", "the", "the ", "\ufffdthe"])
def test_the_edges_of_a_token_are_each_servers_own(text: str) -> None:
    assert bare(text) == "the"
