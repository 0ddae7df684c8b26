"""Whole promotions, with registry, verdicts and aliases, on real vLLM or the embedded server."""

import asyncio
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import httpx
import pytest

from lora_assets.assets.served import ensure_loaded
from lora_assets.gates import smoke
from lora_assets.records.history import LIVE
from lora_assets.records.model_version import ModelVersion
from lora_assets.records.served import CANDIDATE_SLOT, LIVE_SLOT
from tests.support.commands import started
from tests.support.promotions import aliases
from tests.support.replicas import RunningServer, Stack, two_servers

PROMOTIONS, CLIENTS = 20, 4
PLACES = 64
"""More than the adapters that are loaded here, so that the last one is never taken: vLLM on a CPU
answers a base model's request from it when an adapter's shares the batch (docs/facts.md)."""


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sequence[RunningServer]]:
    """Two replicas that are asked for other adapters while one is loaded."""
    folder = tmp_path_factory.mktemp("busy") / "adapters"
    with two_servers(folder, max_loras=PLACES, max_num_seqs=PLACES) as started:
        yield started


async def ask(client: httpx.AsyncClient, prompt: str) -> tuple[str, str]:
    """Return the adapter's name and its answer, from a stream of the live slot."""
    body = {"model": LIVE_SLOT, "prompt": prompt, "max_tokens": 16, "temperature": 0}
    text, names = "", set()
    async with client.stream("POST", "/v1/completions", json={**body, "stream": True}) as reply:
        assert reply.status_code == 200, await reply.aread()
        async for line in reply.aiter_lines():
            if line.startswith("data: {"):
                chunk = json.loads(line.removeprefix("data: "))
                assert "error" not in chunk, chunk
                names.add(chunk["model"])
                text += "".join(choice["text"] for choice in chunk["choices"])
    (name,) = names
    return name, text


def test_clients_that_stream_through_twenty_promotions_see_no_error_and_no_third_adapter(
    stack: Stack,
) -> None:
    promoted: list[ModelVersion] = []
    # Of each client its answers: the prompt's number, the adapter's name, the text.
    seen: list[list[tuple[int, str, str]]] = [[] for _ in range(CLIENTS)]

    def promote_next() -> None:
        stack.stage(len(promoted) + 1)
        promoted.append(stack.promote(len(promoted) + 1))

    async def ask_until(ended: asyncio.Event, number: int) -> None:
        url = stack.servers[number % len(stack.servers)].url
        async with httpx.AsyncClient(base_url=url, timeout=120) as client:
            while not ended.is_set():
                prompt = (len(seen[number]) + number) % len(smoke.PROMPTS)
                seen[number].append((prompt, *await ask(client, smoke.PROMPTS[prompt])))

    async def drive() -> None:
        ended = asyncio.Event()
        async with asyncio.TaskGroup() as group:
            for number in range(CLIENTS):
                group.create_task(ask_until(ended, number))
            for _ in range(PROMOTIONS):
                await asyncio.to_thread(promote_next)
            ended.set()

    promote_next()
    asyncio.run(drive())
    assert aliases(stack.resources) == {"live": PROMOTIONS + 1, "previous": PROMOTIONS}
    order = [version.serving_name for version in promoted]
    assert [version.digest for version in promoted] == [
        stack.adapter(number).digest for number in range(1, PROMOTIONS + 2)
    ]
    for answers in seen:
        places = [order.index(name) for _, name, _ in answers]
        assert places == sorted(places)
        for place, (prompt, name, text) in zip(places, answers, strict=True):
            meant = stack.fresh[stack.adapter(place + 1).name][prompt]
            assert text == meant.text, (name, prompt)
    assert len({name for answers in seen for _, name, _ in answers}) > PROMOTIONS // 2


def at_once(*commands: tuple[str, Mapping[str, str]]) -> Sequence[tuple[int, str]]:
    """Exit status and last line of `lora-assets` commands, each in its environment, at once."""
    begun = [started(command.split(), environment) for command, environment in commands]
    ended = [(process.communicate()[0], process.returncode) for process in begun]
    return [(code, (text.splitlines() or [""])[-1]) for text, code in ended]


@pytest.mark.parametrize("second", ["promote", "rollback"])
@pytest.mark.parametrize("homes", ["one Dagster", "two Dagsters"])
def test_two_promotions_at_once_end_in_one_state(
    stack: Stack, tmp_path: Path, second: str, homes: str
) -> None:
    registry = stack.resources.registry
    for number in (1, 2):
        stack.stage(number)
        stack.promote(number)
    third = stack.stage(3)
    ensure_loaded(registry, stack.replicas(), third, stack.resources.work_folder)
    place = CANDIDATE_SLOT, third.serving_name, third.digest
    stack.replicas().renew_slot(*place)
    other = {"DAGSTER_HOME": str(tmp_path)} if homes == "two Dagsters" else {}
    commands: Sequence[tuple[str, Mapping[str, str]]] = (("promote", {}), (second, other))
    ended = at_once(*((command, {**stack.environment, **home}) for command, home in commands))
    # The later one may find that the earlier one has settled what it came for.
    assert 0 in [code for code, _ in ended], ended
    assert all(line.startswith("error: ") for code, line in ended if code), ended
    standing = registry.standing()
    assert standing.unfinished is None
    live = standing.aliases["live"]
    # Both came to their end only one after the other.
    assert [entry.version for entry in standing.history if entry.outcome == LIVE] in (
        [1, 2, live.version],
        [1, 2, 3, 2],
        [1, 2, 1],
    )
    (known,) = [known for known in stack.adapters if known.digest == live.digest]
    assert set(stack.replicas().serving(LIVE_SLOT).values()) == {live.digest}
    stack.assert_answers(known, 0)
    ((code, line),) = at_once(("status", stack.environment))
    assert code == 0, line
