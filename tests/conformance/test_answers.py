"""The weights that answer are the weights that were meant, on real vLLM or the embedded server."""

import asyncio
import random
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from lora_assets.errors import LoraAssetsError
from lora_assets.gates import smoke
from lora_assets.gates.drift import drifts
from lora_assets.gates.same_weights import same_logprobs
from lora_assets.records.registry import ModelVersion
from lora_assets.resources.fleet import CANDIDATE_SLOT, LIVE_SLOT, Fleet
from tests.conformance.conftest import Answers, Known, RunningServer, fleet_of

SEQUENCES, STEPS = 50, 3
PROMOTIONS, CLIENTS = 20, 4


def version(known: Known, number: int) -> ModelVersion:
    return ModelVersion(
        model="model",
        version=number,
        digest=known.digest,
        data_version=str(number),
        data_digest="e" * 64,
        run_id="run",
    )


def put(fleet: Fleet, known: Known) -> None:
    fleet.place(known.source, known.digest)
    fleet.load(known.name, known.digest, smoke.PROMPTS)


def switch(fleet: Fleet, slot: str, known: Known) -> None:
    put(fleet, known)
    fleet.renew_slot(slot, known.name, known.digest, smoke.PROMPTS)


def assert_answers(fleet: Fleet, model: str, known: Known, fresh: Answers, prompt: int) -> None:
    meant = fresh[known.name][prompt]
    for replica in fleet.replicas:
        found = replica.complete(model, smoke.PROMPTS[prompt], 16)
        assert same_logprobs(meant.logprobs, found.logprobs), (replica.url, model, known.name)


def test_any_sequence_of_changes_answers_as_a_fresh_server_does(
    servers: Sequence[RunningServer], adapters: Sequence[Known], fresh: Answers
) -> None:
    fleet = fleet_of(servers[:1])
    replica = fleet.replicas[0]
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


def test_clients_that_stream_through_twenty_promotions_see_no_error_and_no_third_adapter(
    fleet: Fleet, adapters: Sequence[Known], fresh: Answers
) -> None:
    pair = adapters[:2]
    for known in pair:
        put(fleet, known)
    switch(fleet, LIVE_SLOT, pair[0])
    urls = [replica.url for replica in fleet.replicas]
    ended = asyncio.Event()
    texts = {known.name: [answer.text for answer in fresh[known.name]] for known in pair}

    async def stream(client: httpx.AsyncClient, number: int) -> list[tuple[int, str, str]]:
        seen = []
        while not ended.is_set():
            prompt = (len(seen) + number) % 3
            body = {
                "model": LIVE_SLOT,
                "prompt": smoke.PROMPTS[prompt],
                "max_tokens": 16,
                "temperature": 0,
                "stream": True,
            }
            url = f"{urls[number % len(urls)]}/v1/completions"
            text, names = "", set()
            async with client.stream("POST", url, json=body) as reply:
                assert reply.status_code == 200, await reply.aread()
                async for line in reply.aiter_lines():
                    if line.startswith("data: {"):
                        chunk = httpx.Response(200, content=line[6:]).json()
                        assert "error" not in chunk, chunk
                        names.add(chunk["model"])
                        text += "".join(choice["text"] for choice in chunk["choices"])
            assert len(names) == 1
            seen.append((prompt, names.pop(), text))
        return seen

    async def drive() -> list[tuple[int, str, str]]:
        async with httpx.AsyncClient(timeout=120) as client:
            clients = [asyncio.create_task(stream(client, n)) for n in range(CLIENTS)]
            for number in range(PROMOTIONS):
                known = pair[(number + 1) % 2]
                renewing = asyncio.to_thread(
                    fleet.renew_slot, LIVE_SLOT, known.name, known.digest, smoke.PROMPTS
                )
                await asyncio.wait(
                    [asyncio.ensure_future(renewing), *clients], return_when="FIRST_COMPLETED"
                )
            ended.set()
            return [answer for seen in await asyncio.gather(*clients) for answer in seen]

    answers = asyncio.run(drive())
    assert {name for _, name, _ in answers} == set(texts)
    for prompt, name, text in answers:
        assert text == texts[name][prompt], (name, prompt)


def test_a_killed_replica_is_named_and_gets_its_adapters_back_after_a_restart(
    servers: Sequence[RunningServer], adapters: Sequence[Known], fresh: Answers
) -> None:
    fleet = fleet_of(servers)
    first, second = adapters[2], adapters[3]
    switch(fleet, LIVE_SLOT, first)
    fleet.retire([first.digest])
    servers[1].kill()
    with pytest.raises(LoraAssetsError, match=servers[1].url):
        switch(fleet, LIVE_SLOT, second)
    alone = fleet_of(servers[:1])
    assert alone.serving(LIVE_SLOT) == {servers[0].url: first.digest}
    assert second.name not in alone.replicas[0].loaded()
    assert_answers(alone, LIVE_SLOT, first, fresh, 0)
    servers[1].start()
    servers[1].await_health()
    live = {"live": version(first, 3)}
    found = drifts(live, LIVE_SLOT, CANDIDATE_SLOT, [fleet.replicas[1].served()])
    assert {drift.name for drift in found} == {LIVE_SLOT, live["live"].serving_name}
    switch(fleet, LIVE_SLOT, first)
    assert_answers(fleet, LIVE_SLOT, first, fresh, 1)


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
    assert set(fleet.serving(CANDIDATE_SLOT).values()) == {adapters[4].digest}
    assert_answers(fleet, CANDIDATE_SLOT, adapters[4], fresh, 2)


def test_preflight_learns_what_the_server_can_take(fleet: Fleet) -> None:
    limits = fleet.replicas[0].limits()
    assert limits.base_names[0] == "embedded-base"
    assert (limits.runtime_loading, limits.max_loras) == (True, 6)
