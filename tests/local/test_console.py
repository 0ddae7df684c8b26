"""The console's lines: progress as a bar on a terminal."""

import pytest

from lora_assets.local.console import bar
from lora_assets.records.run_outcome import progress_line


@pytest.mark.parametrize(
    ("message", "drawn"),
    [
        (
            "trained 160 of 400 steps, 6.81/s, 35 s to go",
            "trained [########............] 160/400 steps, 6.81/s, 35 s to go",
        ),
        (
            "trained 800 of 2000 tokens, 2140/s, 1 s to go, loss 0.1234",
            "trained [########............] 800/2000 tokens, 2140/s, 1 s to go, loss 0.1234",
        ),
        ("load test: 0 of 3000 requests", "load test: [....................] 0/3000 requests"),
        ("live: answered 9 of 9", "live: answered [####################] 9/9"),
    ],
)
def test_progress_is_a_bar_with_its_rate_and_the_time_to_go(message: str, drawn: str) -> None:
    assert bar(progress_line("adapter", message)) == progress_line("adapter", drawn)


@pytest.mark.parametrize(
    "message",
    ["done in 0.1 s", "the judge gave 10 of 10 right answers an A", "read train 49, val 5 rows"],
)
def test_another_line_is_no_bar(message: str) -> None:
    assert bar(progress_line("eval_grades", message)) is None
