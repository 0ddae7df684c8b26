import dagster as dg
import pytest

from lora_assets.assets.pages import number, pace, sides_rows, table


@pytest.mark.parametrize(
    ("done", "seconds", "shown"),
    [(0, 5.0, ""), (25, 10.0, ", 2.5/s, 30 s to go"), (100, 40.0, ""), (25, 0.0, "")],
)
def test_progress_has_a_rate_and_the_time_to_go_while_there_is_some(
    done: int, seconds: float, shown: str
) -> None:
    assert pace(done, 100, seconds) == shown


def test_a_number_has_no_zeros_at_its_end() -> None:
    assert [number(1600.0), number(0.25), number(-1.5, "+"), number(2.0, "+")] == [
        *("1600", "0.25", "-1.5", "+2")
    ]


def test_a_table_without_rows_says_none() -> None:
    assert table([]) == table(sides_rows({})) == dg.MetadataValue.text("none")
    assert table([{"split": "train"}]).records == [dg.TableRecord({"split": "train"})]
    assert table([{"mean": 0.1 + 0.2}]).records == [dg.TableRecord({"mean": 0.3})]
