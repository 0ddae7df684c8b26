import itertools

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from lora_assets.load_test.answer import Events
from lora_assets.load_test.response import MOST_PART_BYTES, Response

HEAD = b"HTTP/1.1 200 OK\r\n"
CHUNKS = b"3;ext=1\r\nabc\r\nA\r\n\r\n34567890\r\n0\r\nTrailer: x\r\n\r\n"
BODY = b"abc\r\n34567890"
RESPONSES = [
    HEAD + b"Transfer-Encoding: Chunked\r\n\r\n" + CHUNKS,
    HEAD + b"content-length: 13\r\nConnection: close\r\n\r\n" + BODY,
]


def read(response: bytes, *cuts: int) -> tuple[Response, bytes, bool]:
    """Read a response that comes in pieces; return its body, and whether it has ended."""
    got = Response()
    body: list[bytes] = []
    reader = got.read(lambda now, piece: body.append(piece))
    next(reader)
    at = [0, *sorted(cuts), len(response)]
    try:
        for start, end in itertools.pairwise(at):
            reader.send((0.0, response[start:end]))
    except StopIteration:
        return got, b"".join(body), True
    return got, b"".join(body), False


@pytest.mark.parametrize("response", RESPONSES)
@given(cuts=st.lists(st.integers(0, 80), max_size=9))
def test_a_response_is_read_in_whatever_pieces_it_comes(response: bytes, cuts: list[int]) -> None:
    got, body, ended = read(response, *(min(cut, len(response)) for cut in cuts))
    assert (got.status, body, ended) == (200, BODY, True)
    assert got.closes == (b"close" in response)


def test_a_body_without_a_length_ends_with_its_connection() -> None:
    got, body, ended = read(HEAD + b"\r\n" + BODY)
    assert (body, ended, got.ends_with_connection) == (BODY, False, True)


@pytest.mark.parametrize(
    "response",
    [
        b"oops\r\n\r\n",
        HEAD + b"Transfer-Encoding: chunked\r\n\r\nxyz\r\n",
        HEAD + b"Content-Encoding: gzip\r\nContent-Length: 3\r\n\r\nabc",
    ],
)
def test_what_is_no_response_is_an_error(response: bytes) -> None:
    with pytest.raises((ValueError, IndexError)):
        read(response)


@pytest.mark.parametrize("head", [b"X: ", b"Content-Length: 99999999\r\n\r\n"])
def test_what_is_not_yet_complete_is_kept_up_to_a_bound(head: bytes) -> None:
    with pytest.raises(ValueError, match="more than 1 MiB"):
        read(HEAD + head + b"x" * (2 * MOST_PART_BYTES), MOST_PART_BYTES + 99)
    with pytest.raises(ValueError, match="more than 1 MiB"):
        list(Events().take(b"data: " + b"x" * MOST_PART_BYTES))


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
