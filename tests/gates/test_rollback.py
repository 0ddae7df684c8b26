from collections.abc import Sequence

import pytest

from lora_assets.errors import LoraAssetsError
from lora_assets.gates.rollback import (
    live_since,
    next_previous,
    recorded_live,
    rejected,
    rollback_target,
)
from lora_assets.records.history import ABORTED, LIVE, Change, Standing, change
from lora_assets.records.model_version import Action, ModelVersion, Promotion
from tests.support.records import model_version

V = [model_version(number, str(number), f"{number}" * 64) for number in range(5)]


def promotion(to: int, replaced: int, action: Action = "promotion", **more: object) -> Promotion:
    given = {"source_alias": "staged", "version": V[to], "action": action, "number": to}
    before = {"replaced": V[replaced] if replaced else None, "run_id": f"{action}-{replaced}-{to}"}
    return Promotion.model_validate({**given, **before, **more})


def entries(*promotions: Promotion, outcome: str = LIVE) -> tuple[Change, ...]:
    return tuple(
        change(each.model_copy(update={"number": number}), outcome)
        for number, each in enumerate(promotions, 1)
    )


TWO = (promotion(1, 0), promotion(2, 1))
ROLLED_BACK = (*TWO, promotion(1, 2, "rollback", by="ann", at="today", why="wrong answers"))


def standing(
    live: int, previous: int, history: Sequence[Change], last: Promotion | None = None
) -> Standing:
    aliases: dict[str, ModelVersion] = {"live": V[live], "previous": V[previous]}
    return Standing(aliases=aliases, live=V[live], last=last, history=tuple(history))


def test_what_was_rolled_back_is_marked_until_a_person_names_it() -> None:
    assert list(rejected(entries(*ROLLED_BACK))) == [2]
    assert not rejected(entries(*ROLLED_BACK, promotion(2, 1, "return")))
    # Nor does it come back when its successor is rolled back, whatever the aliases say.
    third = entries(*ROLLED_BACK, promotion(3, 1))
    assert rollback_target(standing(3, 2, third), "model") == 1


def test_live_is_live_since_the_entry_that_last_made_it_so() -> None:
    again = (*ROLLED_BACK, promotion(1, 1, "nothing changed"))
    since = live_since(standing(1, 2, entries(*again)))
    assert since is not None
    assert (since.number, since.asked) == (3, "by ann, today: wrong answers")
    assert live_since(standing(4, 1, entries(*TWO))) is None


def test_a_previous_that_was_never_live_does_not_count() -> None:
    assert rollback_target(standing(2, 4, entries(*TWO)), "model") == 1
    assert rollback_target(standing(2, 4, ()), "model") == 4
    with pytest.raises(LoraAssetsError, match="no version to go back to"):
        rollback_target(standing(1, 4, entries(TWO[0])), "model")


def test_of_a_promotion_cut_short_it_undoes_what_was_begun_and_completes_nothing() -> None:
    cut_short = standing(2, 2, entries(*TWO), promotion(3, 2))
    assert rollback_target(cut_short, "model") == 2
    undo = promotion(2, 3, "rollback")
    assert next_previous(cut_short, undo) == 1
    resumed = standing(2, 1, entries(*TWO), promotion(1, 2, "rollback"))
    assert rollback_target(resumed, "model") == 1


def test_the_newest_entry_or_an_older_releases_record_says_what_is_live() -> None:
    assert recorded_live(None, ()) is None
    aborted = entries(promotion(3, 2), outcome=ABORTED)
    assert recorded_live(None, (*entries(*TWO), *aborted)) == 2
    assert recorded_live(promotion(4, 2, done=True), entries(*TWO)) == V[4]
    assert recorded_live(promotion(4, 2), entries(*TWO)) == 2
