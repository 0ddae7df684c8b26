"""What the images are installed from: the pins of all packages, and the hashes of their files."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
REQUIREMENTS = ROOT / "deploy/images/requirements"
ENTRY = re.compile(r"([\w-]+)==(\S+)((?: \\\n    --hash=sha256:[0-9a-f]{64})+)\n")


def plain(distribution: str) -> str:
    """Return the name of a distribution as the index spells it."""
    return re.sub(r"[-_.]+", "-", distribution).lower()


def pinned() -> dict[str, str]:
    """Return the version that constraints.txt has of each distribution."""
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = (line.partition("==") for line in lines if not line.startswith("#"))
    return {plain(name): version for name, _, version in pins}


def locked(file: str, folder: Path = REQUIREMENTS) -> dict[str, tuple[str, set[str]]]:
    """Return version and hashes by distribution; the file must have nothing else."""
    text = re.sub("^ *#.*\n", "", (folder / file).read_text(), flags=re.M)
    assert ENTRY.sub("", text) == ""
    return {name: (version, set(hashes.split())) for name, version, hashes in ENTRY.findall(text)}
