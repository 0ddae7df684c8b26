"""The rooms as a diagram in docs/architecture.md: python -m tests.house.graph --write."""

from graphlib import TopologicalSorter

from tests.house.rooms import LEVELS, ROOT, graph

PAGE = ROOT / "docs" / "architecture.md"
BEGIN = "<!-- rooms: made by 'python -m tests.house.graph --write' -->\n"
END = "<!-- end of rooms -->"


def diagram() -> str:
    """Return the rooms in Mermaid; an arrow that a longer way implies is left out."""
    rooms = graph()
    reached: dict[str, set[str]] = {}
    lines = ["```mermaid", "graph TB"]
    for number, level in reversed([*enumerate(LEVELS, start=1)]):
        lines += [f'  subgraph floor{number}["{number}"]', "    " + " ~~~ ".join(level), "  end"]
    for room in TopologicalSorter(rooms).static_order():
        implied = set().union(*(reached[below] for below in rooms[room]))
        reached[room] = rooms[room] | implied
        lines += [f"  {room} --> {below}" for below in sorted(rooms[room] - implied)]
    return "\n".join([*lines, "```", ""])


def page() -> str:
    before, rest = PAGE.read_text().split(BEGIN)
    return before + BEGIN + diagram() + END + rest.partition(END)[2]


if __name__ == "__main__":
    PAGE.write_text(page())
