"""The blocks of the documentation, and those of a console: commands with what they print.

A block's first line says where it runs: ```console on the embedded stack, in the test of the
pages; ```console cluster beside a cluster; ```console checkout in a checkout (make, pytest, git).
"""

import os
import re
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

REPOSITORY = Path(__file__).parents[2]
PAGES = (*sorted((REPOSITORY / "docs").rglob("*.md")), *sorted(REPOSITORY.glob("*.md")))
PLACES = ("", "cluster", "checkout")
CLUSTERS_PROGRAMS = (
    *("argo", "aws", "docker", "gh", "helm", "kind"),
    *("kubectl", "kustomize", "lora-assets", "make"),
)
NOTES_ITS_CALL = """#!/bin/bash
printf '%s\\0' "${0##*/}" "$@" >> "$CALLS"
echo >> "$CALLS"
[[ -p /dev/stdin ]] && cat > /dev/null
for word; do [[ $word = --from-env-file=* ]] && cat "${word#*=}" >> "$SECRETS"; done
echo "  concurrency:"
"""
SET_BEFORE = (
    *("HF_TOKEN", "WEBHOOK", "PASSWORD", "CLIENT_ID", "CLIENT_SECRET"),
    *("S3_KEY", "S3_SECRET", "S3_URL"),
)
"""Variables of the shell that are a person's own."""

_BLOCK = re.compile(r"^```([a-z]*)(?: ([^\n]*))?\n(.*?)^```$", re.S | re.M)
_NUMBERS = re.compile(r"[+-]?\b[0-9a-f]{12,}\b|[+-]?\d+(?:\.\d+)?(?:e-\d+)?")


class Typed(NamedTuple):
    """A command as a person types it, and the lines that the page shows of its output."""

    line: str
    shown: Sequence[str]


def blocks(page: Path, language: str) -> Iterator[tuple[str, str]]:
    """Yield the rest of the first line, and the text, of each block in a language."""
    for kind, rest, text in _BLOCK.findall(page.read_text()):
        if kind == language:
            yield rest.strip(), text


def block(page: str, language: str, name: str) -> str:
    """Return the text of the one block of a page that has this name."""
    (text,) = (text for rest, text in blocks(REPOSITORY / page, language) if rest == name)
    return text


def typed(page: Path, place: str = "") -> Sequence[Typed]:
    """Return the commands of a page's blocks that run in a place, in their order."""
    commands: list[Typed] = []
    for where, text in blocks(page, "console"):
        if where != place:
            continue
        for line in text.replace("\\\n", " ").splitlines():
            if line.startswith("$ "):
                commands.append(Typed(line[2:], []))
            elif line.startswith("  "):
                commands[-1] = Typed(f"{commands[-1].line}\n{line}", [])
            elif line.strip() and line.strip() != "...":
                commands[-1] = Typed(commands[-1].line, [*commands[-1].shown, line])
    return commands


def masked(line: str) -> str:
    """Return a line without its numbers, digests and differences of white space."""
    return " ".join(_NUMBERS.sub("#", line).split())


def require_shown(each: Typed, printed: str) -> None:
    """Hold what a command has printed against the lines that a page shows of it."""
    lines = [masked(line) for line in printed.splitlines()]
    for shown in each.shown:
        pattern = re.escape(masked(shown)).replace(r"\.\.\.", ".*")
        assert any(re.fullmatch(pattern, line) for line in lines), (each.line, shown, printed)


def type_into_bash(page: Path, folder: Path) -> Sequence[Sequence[str]]:
    """Type a page's commands for a cluster, over programs that only note how they are called.

    What stands in angle brackets is filled in. Return the calls, each with its program first.
    What these would have read from `--from-env-file` is in the file `secrets`.
    """
    programs = folder / "programs"
    programs.mkdir()
    for name in CLUSTERS_PROGRAMS:
        (programs / name).write_text(NOTES_ITS_CALL)
        (programs / name).chmod(0o755)
    lines = "\n".join(each.line for each in typed(page, "cluster"))
    script = re.sub(r"<[a-z][\w ]*>", "filled-in", lines)
    environment = dict.fromkeys(SET_BEFORE, "given") | {
        "PATH": f"{programs}:{os.environ['PATH']}",
        "CALLS": str(folder / "calls"),
        "SECRETS": str(folder / "secrets"),
    }
    command = ["bash", "-euo", "pipefail", "-c", script]
    subprocess.run(command, cwd=folder, env=environment, stdin=subprocess.DEVNULL, check=True)
    calls = (folder / "calls").read_text().removesuffix("\0\n").split("\0\n")
    return [call.split("\0") for call in calls]
