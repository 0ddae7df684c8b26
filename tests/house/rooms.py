"""The rooms of the package, and what its files import from each other."""

import ast
from collections.abc import Iterator, Mapping, Sequence
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

ROOT = Path(__file__).parents[2]
PRODUCT = ROOT / "lora_assets"
LEVELS: Sequence[Sequence[str]] = (
    ("errors", "bounded_calls", "heavy_imports", "stop_signals", "records", "gates", "lifecycle"),
    ("serving", "training", "judging", "load_test", "automation", "engines"),
    ("embedded",),
    ("resources", "kubernetes", "remote"),
    ("parameters", "local", "assets", "sensors"),
    ("setting", "settings", "guarded_records", "stack_resources", "definitions", "cli"),
)
"""From the ground up; a file imports only from its own floor and those below."""
FLOOR = {room: number for number, rooms in enumerate(LEVELS, start=1) for room in rooms}
Arrow = tuple[str, str, str]
"""The file that imports, its room, and the room that it imports from."""


def files(folder: Path) -> Sequence[Path]:
    return sorted(folder.rglob("*.py"))


def imports(file: Path) -> Iterator[tuple[int, str]]:
    """Yield line and dotted name of each import, those inside functions too."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)


def arrows() -> Sequence[Arrow]:
    led = set()
    for file in files(PRODUCT):
        inside = file.relative_to(PRODUCT)
        if inside.name == "__init__.py" and len(inside.parts) == 1:
            continue
        room = inside.parts[0].removesuffix(".py")
        for _, name in imports(file):
            package, _, rest = name.partition(".")
            target = rest.partition(".")[0]
            if package == "lora_assets" and target != room:
                led.add((str(inside), room, target))
    return sorted(led)


def graph() -> Mapping[str, set[str]]:
    """Return the rooms that each room imports from."""
    rooms: dict[str, set[str]] = {room: set() for room in FLOOR}
    for _, room, target in arrows():
        rooms[room].add(target)
    return rooms


def cycle() -> Sequence[str]:
    """Return the rooms of a cycle; empty where there is none."""
    try:
        TopologicalSorter(graph()).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def upward() -> Sequence[Arrow]:
    """Return the arrows that lead up, and those to the stand-ins from anywhere but the wiring."""
    return [
        (file, room, target)
        for file, room, target in arrows()
        if FLOOR[target] > FLOOR[room] or (target == "embedded" and room not in LEVELS[-1])
    ]


def private_imports() -> Sequence[tuple[str, int, str]]:
    """Return file, line and name of what is imported from Dagster's private modules."""
    return sorted(
        (str(file.relative_to(PRODUCT)), line, name)
        for file in files(PRODUCT)
        for line, name in imports(file)
        if name.startswith("dagster") and "._" in name.rpartition(".")[0] + "."
    )
