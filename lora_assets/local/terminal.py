"""Lines of progress on stderr, and bars where that is a terminal."""

import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager

_PROGRESS = re.compile(
    r"(  \S+ +.*?)(\d+) of (\d+)( \w+)?((?:, \S+/s, \d+ s to go)?(?:, loss \S+)?)"
)
_CELLS = 10
_CLEAR = "\r\033[K"


def bar(line: str, columns: int) -> str | None:
    """Return a line of progress as a bar that fits into a terminal; None for another line."""
    if (found := _PROGRESS.fullmatch(line)) is None:
        return None
    what, done, total, unit, pace = found.groups(default="")
    filled = _CELLS * int(done) // max(int(total), 1)
    drawn = f"{what}[{'#' * filled:.<{_CELLS}}] {done}/{total}{unit}{pace}"
    if len(drawn) < columns:
        return drawn
    return f"  {' '.join(drawn.split())}"[: columns - 1]


def say(line: str) -> None:
    """Write a line to stderr; on a terminal, a bar of progress until the next line."""
    if not sys.stderr.isatty():
        print(line, file=sys.stderr, flush=True)
        return
    columns = os.get_terminal_size(sys.stderr.fileno()).columns or 80
    # The cursor stays behind a bar: what others write then covers none of it.
    print(_CLEAR, bar(line, columns) or f"{line}\n", sep="", end="", file=sys.stderr, flush=True)


@contextmanager
def bar_cleared() -> Iterator[None]:
    """Leave no bar behind when the block ends."""
    try:
        yield
    finally:
        if sys.stderr.isatty():
            print(_CLEAR, end="", file=sys.stderr, flush=True)
