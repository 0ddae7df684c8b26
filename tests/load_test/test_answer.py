import itertools

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from lora_assets.load_test.answer import MOST_EVENT_BYTES, Events


def test_a_stream_may_begin_with_a_mark_of_its_byte_order() -> None:
    assert list(Events().take(b"\xef\xbb\xbfdata: a\n\n")) == [b"a"]


def test_an_event_that_does_not_end_is_kept_up_to_a_bound() -> None:
    with pytest.raises(ValueError, match="more than 1 MiB"):
        list(Events().take(b"data: " + b"x" * MOST_EVENT_BYTES))


@example(lines=[b"data: a"], ends=[b"\r\n"], cuts=[8, 8])
@given(
    lines=st.lists(st.sampled_from([b"data: a", b"data:b", b"data:", b": ping", b"id: 1", b""])),
    ends=st.lists(st.sampled_from([b"\r\n", b"\n", b"\r"]), min_size=1),
    cuts=st.lists(st.integers(0, 200), max_size=9),
)
def test_events_are_the_same_whatever_ends_their_lines_and_however_they_come(
    lines: list[bytes], ends: list[bytes], cuts: list[int]
) -> None:
    lines = [*lines, b"", b"data: last", b""]
    expected = list(Events().take(b"".join(line + b"\n" for line in lines)))
    # A lone CR and then an LF would be one line end.
    ends = [ends[0]] if {b"\r", b"\n"} <= set(ends) or {b"\r", b"\r\n"} <= set(ends) else ends
    stream = b"".join(line + ends[n % len(ends)] for n, line in enumerate(lines))
    at = [0, *sorted(min(cut, len(stream)) for cut in cuts), len(stream)]
    events = Events()
    got: list[bytes] = []
    for start, end in itertools.pairwise(at):
        got += events.take(stream[start:end])
    assert got == expected
    assert got[-1] == b"last"
