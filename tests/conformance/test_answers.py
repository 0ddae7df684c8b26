"""The weights that answer are the weights that were meant, on real vLLM or the embedded server."""

import random

from lora_assets.embedded.server.options import PACKAGED_BASE_MODEL
from lora_assets.records.base_model import Base
from lora_assets.records.served import CANDIDATE_SLOT, LIVE_SLOT
from lora_assets.records.training import EMBEDDED_PARAMETERS
from lora_assets.serving.base_proof import other_answers
from lora_assets.training.base_answers import base_answers
from lora_assets.training.base_identity import base_identity
from lora_assets.training.qlora import load_model, load_tokenizer
from tests.support.replicas import ADAPTERS, Known, Stack

SEQUENCES, STEPS = 50, 3


def put(stack: Stack, known: Known) -> None:
    stack.replicas().place(known.source, known.digest)
    stack.replicas().load(known.name, known.digest)


def switch(stack: Stack, slot: str, known: Known) -> None:
    put(stack, known)
    stack.replicas().renew_slot(slot, known.name, known.digest)


def test_any_sequence_of_changes_answers_as_a_fresh_server_does(stack: Stack) -> None:
    alone = stack.on(stack.servers[0])
    (replica,) = alone.replicas().members
    rng = random.Random(2026)
    slots: dict[str, Known] = {}
    former: dict[str, Known] = {}
    for _ in range(SEQUENCES):
        for _ in range(STEPS):
            known, slot = rng.choice(stack.adapters), rng.choice([LIVE_SLOT, CANDIDATE_SLOT])
            step = rng.choice(["load", "promote", "roll back", "unload"])
            if step == "roll back" and slot in former:
                slots[slot], former[slot] = former[slot], slots[slot]
                switch(alone, slot, slots[slot])
            elif step == "unload" and known not in slots.values():
                replica.unload(known.name)
            elif step == "load":
                put(alone, known)
                alone.assert_answers(known, rng.randrange(3), known.name)
            else:
                if slot in slots:
                    former[slot] = slots[slot]
                slots[slot] = known
                switch(alone, slot, known)
            for served, holder in slots.items():
                alone.assert_answers(holder, rng.randrange(3), served)


def test_preflight_learns_what_the_server_can_take(stack: Stack) -> None:
    limits = stack.replicas().members[0].limits()
    assert limits.base_names[0] == "embedded-base"
    assert (limits.runtime_loading, limits.max_loras) == (True, ADAPTERS)


def test_the_served_base_model_is_known_by_what_training_kept_of_it(stack: Stack) -> None:
    folder = str(PACKAGED_BASE_MODEL)
    answers = base_answers(load_model(folder, EMBEDDED_PARAMETERS), load_tokenizer(folder))
    for replica in stack.replicas().members:
        served = replica.base_answers(replica.listing().base_model)
        assert other_answers(answers, served) is None
        assert [each.text for each in served] == [each.text for each in answers]
    assert stack.replicas().unproved(Base(identity=base_identity(folder), answers=answers)) == []
