from lora_assets.remote.attempts import current, first, surplus
from lora_assets.remote.webserver import Run


def run(
    run_id: str, created: float, status: str = "STARTED", parent: str | None = None, **tags: str
) -> Run:
    labels = {f"dagster/{name}": value for name, value in tags.items()}
    return Run(run_id=run_id, status=status, created=created, parent=parent, tags=labels)


def test_the_run_that_was_created_first_counts_in_whatever_order_they_are_seen() -> None:
    early, late, twin = run("b", 1.0), run("a", 2.0), run("c", 1.0)
    for seen in ([early, late, twin], [late, twin, early], [twin, early, late]):
        assert first(seen) == current(seen) == early
        assert {each.run_id for each in surplus(seen)} == {"a", "c"}
    assert first([]) is None
    assert current([]) is None


def test_the_first_run_counts_although_it_was_terminated_or_failed() -> None:
    for status in ("CANCELED", "FAILURE", "SUCCESS"):
        ended = run("a", 1.0, status)
        assert current([run("b", 2.0), ended]) == ended
        assert surplus([ended, run("b", 2.0), run("c", 3.0, "CANCELED")]) == [run("b", 2.0)]


def test_a_run_that_dagster_will_try_again_has_not_ended() -> None:
    lost = run("a", 1.0, "FAILURE", will_retry="true")
    assert not lost.ended
    assert current([lost]) == lost
    assert run("a", 1.0, "FAILURE", will_retry="false").ended


def test_a_run_that_dagster_tried_again_is_followed_to_its_last_try() -> None:
    runs = [
        run("a", 1.0, "FAILURE", will_retry="true", auto_retry_run_id="b"),
        run("b", 2.0, "FAILURE", parent="a", will_retry="true", auto_retry_run_id="c"),
        run("c", 3.0, parent="b"),
    ]
    assert current(runs) == runs[2]
    assert current(runs[:2]) == runs[1]


def test_what_was_made_from_a_run_is_neither_counted_nor_terminated() -> None:
    by_hand = run("b", 2.0, parent="a")
    assert surplus([run("a", 1.0, "FAILURE"), by_hand]) == []
    assert first([by_hand]) is None
