"""The table of the variants, and what this engine is held to."""

from collections.abc import Iterator, Mapping
from typing import Any

from benchmarks.training.measured import Measured
from lora_assets.records import Record
from lora_assets.records.training import Profile

GOALS: tuple[tuple[Profile, str, tuple[str, ...], float], ...] = (
    ("standard", "lora-assets", ("specification",), 6.0),
    ("standard", "lora-assets", ("trl", "trl-checkpointing"), 2.5),
    ("standard", "lora-assets", ("unsloth",), 1.5),
    ("standard", "lora-assets-24gb", ("unsloth-checkpointing",), 1.5),
    ("aggressive", "lora-assets", ("specification",), 6.0),
    ("aggressive", "lora-assets", ("trl", "trl-checkpointing"), 2.5),
    ("aggressive", "lora-assets", ("unsloth",), 1.4),
    ("aggressive", "lora-assets-24gb", ("unsloth-checkpointing",), 1.5),
)
"""How many times as fast as the fastest of some others a variant is to be, on an H100."""
FLOOR_GOAL = 0.6
"""The share of the floor that the engine is to reach in the profile standard."""


class Results(Record):
    """All that was measured; a variant that failed is its cause."""

    device: str
    threads: int
    torch: str
    matrix_rate: float
    parameters: int
    rows: int
    shape: str
    found: Mapping[Profile, Mapping[str, Measured | str]]

    @property
    def floor(self) -> float:
        """Tokens per second, if the products of matrices were all there is."""
        return self.matrix_rate / (4 * self.parameters)

    def failures(self) -> list[str]:
        return [
            found
            for variants in self.found.values()
            for found in variants.values()
            if isinstance(found, str)
        ]


def ratios(found: Mapping[Profile, Mapping[str, Measured | str]]) -> Iterator[str]:
    """Return a line for each goal whose variants were all measured, at least one of the others."""
    for profile, name, others, goal in GOALS:
        variants = found.get(profile, {})
        rates = {
            variant: measured.tokens_per_second
            for variant, measured in variants.items()
            if isinstance(measured, Measured)
        }
        fastest = max((other for other in others if other in rates), key=rates.get, default=None)
        if name in rates and fastest is not None:
            times = rates[name] / rates[fastest]
            yield f"{profile}: {name} is {times:.2f} x {fastest} (goal {goal})"


def print_results(results: Results) -> None:
    """Print a table for each profile, then the ratios and what the engine said."""
    print(
        f"{results.device}, {results.threads} threads, torch {results.torch}; "
        f"{results.shape}, {results.parameters / 1e9:.2f} B parameters, {results.rows} rows\n"
        f"matrix products: {results.matrix_rate / 1e12:,.2f} TFLOP/s, "
        f"floor {results.floor:,.0f} tokens/s (goal {FLOOR_GOAL:.0%} of it, standard)"
    )
    for profile, variants in results.found.items():
        print(f"\n{profile:24}{'tokens/s':>10}{'floor':>7}{'GB':>7}  losses of the first updates")
        for name, found in variants.items():
            print(f"  {name:22}{found if isinstance(found, str) else _figures(found, results)}")
    print()
    for line in ratios(results.found):
        print(line)
    for profile, variants in results.found.items():
        for name, found in variants.items():
            if isinstance(found, Measured):
                print(f"{profile} {name}: {_about(found)}")


def _figures(found: Measured, results: Results) -> str:
    share = found.tokens_per_second / results.floor
    losses = "  ".join(f"{loss:.4f}" for loss in found.losses)
    return f"{found.tokens_per_second:10,.0f}{share:7.0%}{found.peak_gb:7.1f}  {losses}"


def _about(found: Measured) -> str:
    parts: list[Any] = [f"{found.updates} updates", f"{found.reserved_gb:.1f} GB reserved"]
    parts += [f"{package} {version}" for package, version in found.versions.items()]
    if found.own_rate is not None:
        parts.append(f"{found.own_rate:,.0f} tokens/s by its own count")
    return "; ".join((", ".join(parts), *found.notes))
