"""The weights that answer are the weights that were meant, on real vLLM or the embedded server."""

import random
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from lora_assets.errors import LoraAssetsError
from lora_assets.gates import smoke
from lora_assets.resources.fleet import CANDIDATE_SLOT, LIVE_SLOT, Fleet
from tests.support.replicas import (
    ADAPTERS,
    Answers,
    Known,
    RunningServer,
    assert_answers,
    fleet_of,
)

SEQUENCES, STEPS = 50, 3


def put(fleet: Fleet, known: Known) -> None:
    fleet.discover().place(known.source, known.digest)
    fleet.discover().load(known.name, known.digest, smoke.PROMPTS)


def switch(fleet: Fleet, slot: str, known: Known) -> None:
    put(fleet, known)
    fleet.discover().renew_slot(slot, known.name, known.digest, smoke.PROMPTS)


def test_any_sequence_of_changes_answers_as_a_fresh_server_does(
    servers: Sequence[RunningServer], adapters: Sequence[Known], fresh: Answers
) -> None:
    fleet = fleet_of(servers[:1])
    replica = fleet.discover().members[0]
    rng = random.Random(2026)
    slots: dict[str, Known] = {}
    former: dict[str, Known] = {}
    for _ in range(SEQUENCES):
        for _ in range(STEPS):
            known, slot = rng.choice(adapters), rng.choice([LIVE_SLOT, CANDIDATE_SLOT])
            step = rng.choice(["load", "promote", "roll back", "unload"])
            if step == "roll back" and slot in former:
                slots[slot], former[slot] = former[slot], slots[slot]
                switch(fleet, slot, slots[slot])
            elif step == "unload" and known not in slots.values():
                replica.unload(known.name)
            elif step == "load":
                put(fleet, known)
                assert_answers(fleet, known.name, known, fresh, rng.randrange(3))
            else:
                if slot in slots:
                    former[slot] = slots[slot]
                slots[slot] = known
                switch(fleet, slot, known)
            for served, holder in slots.items():
                assert_answers(fleet, served, holder, fresh, rng.randrange(3))


def test_two_switches_at_once_end_with_one_adapter_everywhere(
    fleet: Fleet, adapters: Sequence[Known], fresh: Answers
) -> None:
    for known in adapters[4:6]:
        put(fleet, known)
    with ThreadPoolExecutor(2) as pool:
        done = [pool.submit(switch, fleet, CANDIDATE_SLOT, known) for known in adapters[4:6]]
    failures = [error for each in done if (error := each.exception()) is not None]
    assert all(isinstance(error, LoraAssetsError) for error in failures)
    switch(fleet, CANDIDATE_SLOT, adapters[4])
    assert set(fleet.discover().serving(CANDIDATE_SLOT).values()) == {adapters[4].digest}
    assert_answers(fleet, CANDIDATE_SLOT, adapters[4], fresh, 2)


def test_preflight_learns_what_the_server_can_take(fleet: Fleet) -> None:
    limits = fleet.discover().members[0].limits()
    assert limits.base_names[0] == "embedded-base"
    assert (limits.runtime_loading, limits.max_loras) == (True, ADAPTERS)
