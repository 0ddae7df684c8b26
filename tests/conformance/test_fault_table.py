"""Every step of an operation, with every fault, left to repair itself.

FAULTS says how many injections, by default a few of each operation. `pytest -s` prints the table.
Clients ask by live's name all the time: `answers` are those they got.
"""

import os
from collections.abc import Sequence
from itertools import groupby
from random import Random
from time import perf_counter

import dagster as dg
import pytest

from lora_assets.resources.fleet import Fleet
from tests.support.fault_rounds import AT_MLFLOW, AT_VLLM, OPERATIONS, Outcome, Rounds
from tests.support.faulty_operations import Fault, Meant, Operation
from tests.support.pod import discovering_the_pod
from tests.support.replicas import Stack

INJECTIONS = int(os.environ.get("FAULTS", "0" if "VLLM_PYTHON" in os.environ else "12"))

pytestmark = pytest.mark.skipif(
    not INJECTIONS, reason="FAULTS is not set: on real vLLM, whose start takes long, it has to be"
)


@pytest.fixture
def rounds(stack: Stack, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch) -> Rounds:
    monkeypatch.setattr(Fleet, "discover", discovering_the_pod(stack.home))
    made = Rounds(stack, instance)
    made.begin()
    return made


def chosen(calls: Sequence[str], injections: int) -> Sequence[tuple[int, Fault]]:
    """Return this many of all pairs of a call and a fault, drawn once, and the clock."""
    pairs = [
        (at, fault)
        for at, call in enumerate(calls)
        for fault in (AT_VLLM if call.startswith("vLLM") else AT_MLFLOW)
    ]
    drawn = Random(len(pairs)).sample(pairs, min(injections, len(pairs)))
    return [(-1, "clock"), *drawn]


def table(outcomes: Sequence[Outcome]) -> str:
    """Return a row for each operation and fault: what was injected, and what became of it."""
    ordered = sorted(outcomes, key=lambda each: (each.operation, each.fault))
    lines = [
        "operation   fault             injected right wrong stuck answers  s to right, at most"
    ]
    for (operation, fault), group in groupby(ordered, lambda each: (each.operation, each.fault)):
        of_kind = list(group)
        ended = ["wrong" if e.wrong else "stuck" if e.is_stuck else "right" for e in of_kind]
        counted = "".join(f"{ended.count(each):6}" for each in ("right", "wrong", "stuck"))
        answers, seconds = sum(e.answers for e in of_kind), max(e.seconds for e in of_kind)
        row = f"{operation:<12}{fault:<18}{len(of_kind):8}{counted}{answers:8}{seconds:9.1f}"
        lines.append(row)
    return "\n".join(lines)


@pytest.mark.parametrize("operation", OPERATIONS)
def test_an_operation_with_a_fault_at_any_call_ends_in_one_state(
    rounds: Rounds, operation: Operation
) -> None:
    calls, began = rounds.calls(operation), perf_counter()
    drawn = chosen(calls, max(1, INJECTIONS // len(OPERATIONS)))
    for number, (at, fault) in enumerate(drawn, 1):
        victim = rounds.stack.servers[-1].process
        assert victim is not None
        call = calls[at] if at >= 0 else "none"
        rounds.inject(operation, Meant(fault, at, victim.pid), call)
        each = (perf_counter() - began) / number
        left = (len(drawn) - number) * each / 60
        print(
            f"{number}, {each:.0f} s each, {left:.0f} min to go: {rounds.outcomes[-1]}", flush=True
        )
    print(table(rounds.outcomes))
    assert [each for each in rounds.outcomes if each.wrong or each.is_stuck] == []
