"""Read the tables of the specification (data/vllm-argo-workflows.md)."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

_TEXT = (Path(__file__).parent / "data" / "vllm-argo-workflows.md").read_text()


@dataclass(frozen=True)
class ResourceRow:
    """Requests and limits of a step's pod, and its node."""

    node: str
    gpu: str
    requests: Mapping[str, str]
    limits: Mapping[str, str]


@dataclass(frozen=True)
class WorkflowTables:
    """One workflow's section; `parameters` has each default as `argo submit` takes it."""

    steps: tuple[str, ...]
    parameters: Mapping[str, str]
    resources: Mapping[str, ResourceRow]


def read() -> Mapping[str, WorkflowTables]:
    """Return each section that names a file, by the file's name without its suffix."""
    sections = re.split(r"^## ", _TEXT, flags=re.MULTILINE)
    named = {re.search(r"^\*\*File:\*\* `(.+)\.yaml`$", s, re.MULTILINE): s for s in sections}
    return {match[1]: _tables(section) for match, section in named.items() if match}


def _tables(section: str) -> WorkflowTables:
    return WorkflowTables(
        tuple(row["Step"] for row in _table(section, "Steps")),
        {row["Parameter"]: _default(row["Default"]) for row in _table(section, "Parameters")},
        {row["Step"]: _resources(row) for row in _table(section, "Resource Requirements")},
    )


def _table(section: str, heading: str) -> Iterator[Mapping[str, str]]:
    """Yield the rows of the first table under a heading of the third level."""
    _, _, below = section.partition(f"### {heading}\n")
    lines = below.partition("\n### ")[0].splitlines()
    header, _, *rows = [_cells(line) for line in lines if line.startswith("|")]
    for row in rows:
        yield {
            name: re.sub(r"^`([^`]+)`$", r"\1", cell)
            for name, cell in zip(header, row, strict=True)
        }


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split("|")]


def _default(cell: str) -> str:
    """Return the default; `_(from config.py)_` and `""` become Argo's empty string."""
    return "" if cell == "_(from config.py)_" or cell.startswith('`""`') else cell


def _resources(row: Mapping[str, str]) -> ResourceRow:
    spans = {"cpu": _span(row["CPU"]), "memory": _span(row["Memory"])}
    requests = {name: low for name, (low, _) in spans.items()}
    limits = {name: high for name, (_, high) in spans.items()}
    return ResourceRow(row["Node"], row["GPU"], requests, limits)


def _span(cell: str) -> tuple[str, str]:
    """`250m-500m` or `512Mi-1Gi`, or `12-14Gi`, where the unit stands once."""
    low, high = cell.split("-")
    unit = high.lstrip("0123456789")
    return (f"{low}{unit}" if low.isdigit() else low), high
