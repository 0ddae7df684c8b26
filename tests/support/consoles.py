"""The console blocks of the documentation: commands with what they print.

A block's first line says where it runs: ```console on the embedded stack, in the test of the
pages; ```console cluster beside a cluster; ```console checkout in a checkout (make, pytest, git).
"""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

REPOSITORY = Path(__file__).parents[2]
PAGES = (*sorted((REPOSITORY / "docs").rglob("*.md")), *sorted(REPOSITORY.glob("*.md")))
PLACES = ("", "cluster", "checkout")
_BLOCK = re.compile(r"^```([a-z]+)(?: ([^\n]*))?\n(.*?)^```$", re.S | re.M)
_NUMBERS = re.compile(r"\b[0-9a-f]{12,}\b|[+-]?\d+(?:\.\d+)?(?:e-\d+)?")


class Typed(NamedTuple):
    """A command as a person types it, and the lines that the page shows of its output."""

    line: str
    shown: Sequence[str]


def blocks(page: Path, language: str) -> Iterator[tuple[str, str]]:
    """Yield the rest of the first line, and the text, of each block in a language."""
    for kind, rest, text in _BLOCK.findall(page.read_text()):
        if kind == language:
            yield rest.strip(), text


def typed(page: Path, place: str = "") -> Sequence[Typed]:
    """Return the commands of a page's blocks that run in a place, in their order."""
    commands: list[Typed] = []
    for where, text in blocks(page, "console"):
        if where != place:
            continue
        for line in text.replace("\\\n", " ").splitlines():
            if line.startswith("$ "):
                commands.append(Typed(line[2:], []))
            elif line.strip() and line.strip() != "...":
                commands[-1] = Typed(commands[-1].line, [*commands[-1].shown, line])
    return commands


def masked(line: str) -> str:
    """Return a line without its numbers, digests and differences of white space."""
    return " ".join(_NUMBERS.sub("#", line).split())
