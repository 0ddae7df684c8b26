"""Whole promotions, with registry, verdicts and aliases, on real vLLM or the embedded server."""

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence

import httpx
import pytest

from lora_assets.assets.served import ensure_loaded
from lora_assets.errors import LoraAssetsError
from lora_assets.gates import smoke
from lora_assets.records.model_version import ModelVersion
from lora_assets.resources.fleet import CANDIDATE_SLOT, LIVE_SLOT
from tests.support.promotions import aliases, promote, stage
from tests.support.records import passed_verdict
from tests.support.replicas import (
    Answers,
    Known,
    RunningServer,
    StackOfReplicas,
    assert_answers,
    two_servers,
)

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


class StreamingClient:
    """Asks the live slot again and again; keeps each prompt, the adapter's name and its answer."""

    def __init__(self, url: str, number: int) -> None:
        self.answers: list[tuple[int, str, str]] = []
        self._url = f"{url}/v1/completions"
        self._number = number

    async def ask_until(self, ended: asyncio.Event) -> None:
        async with httpx.AsyncClient(timeout=120) as client:
            while not ended.is_set():
                prompt = (len(self.answers) + self._number) % len(smoke.PROMPTS)
                self.answers.append((prompt, *await self._ask(client, smoke.PROMPTS[prompt])))

    async def _ask(self, client: httpx.AsyncClient, prompt: str) -> tuple[str, str]:
        body = {
            "model": LIVE_SLOT,
            "prompt": prompt,
            "max_tokens": 16,
            "temperature": 0,
            "stream": True,
        }
        text, names = "", set()
        async with client.stream("POST", self._url, json=body) as reply:
            assert reply.status_code == 200, await reply.aread()
            async for line in reply.aiter_lines():
                if line.startswith("data: {"):
                    chunk = httpx.Response(200, content=line[6:]).json()
                    assert "error" not in chunk, chunk
                    names.add(chunk["model"])
                    text += "".join(choice["text"] for choice in chunk["choices"])
        (name,) = names
        return name, text


def test_clients_that_stream_through_twenty_promotions_see_no_error_and_no_third_adapter(
    stack: StackOfReplicas, adapters: Sequence[Known], fresh: Answers
) -> None:
    resources = stack.resources
    promoted: list[ModelVersion] = []

    def promote_next() -> None:
        data_version = str(len(promoted) + 1)
        stage(resources, adapters[len(promoted) % len(adapters)].source, data_version)
        promoted.append(promote(resources, data_version))

    promote_next()
    urls = [replica.url for replica in resources.fleet.discover().members]
    clients = [StreamingClient(urls[n % len(urls)], n) for n in range(CLIENTS)]

    async def drive() -> None:
        ended = asyncio.Event()
        async with asyncio.TaskGroup() as group:
            for client in clients:
                group.create_task(client.ask_until(ended))
            for _ in range(PROMOTIONS):
                await asyncio.to_thread(promote_next)
            ended.set()

    asyncio.run(drive())
    assert aliases(resources) == {"live": PROMOTIONS + 1, "previous": PROMOTIONS}
    order = [version.serving_name for version in promoted]
    meant = {
        version.serving_name: [answer.text for answer in fresh[known.name]]
        for version in promoted
        for known in adapters
        if known.digest == version.digest
    }
    for client in clients:
        for prompt, name, text in client.answers:
            assert text == meant[name][prompt], (name, prompt)
        seen = [order.index(name) for _, name, _ in client.answers]
        assert seen == sorted(seen)
    assert len({name for client in clients for _, name, _ in client.answers}) > PROMOTIONS // 2


def at_once(environment: Mapping[str, str], *commands: str) -> Sequence[tuple[int, str]]:
    """Exit status and last line of `lora-assets` commands that run at the same time."""
    started = [
        subprocess.Popen(
            [sys.executable, "-m", "lora_assets.cli.main", *command.split()],
            env={**os.environ, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for command in commands
    ]
    ended = [(process.communicate()[0], process.returncode) for process in started]
    return [(code, (text.splitlines() or [""])[-1]) for text, code in ended]


@pytest.mark.parametrize("second", ["promote", "rollback"])
def test_two_promotions_at_once_end_in_one_state(
    stack: StackOfReplicas, adapters: Sequence[Known], fresh: Answers, second: str
) -> None:
    resources = stack.resources
    for number in (1, 2):
        stage(resources, adapters[number].source, str(number))
        promote(resources, str(number))
    third = stage(resources, adapters[3].source, "3")
    ensure_loaded(resources.registry, resources.fleet.discover(), third, resources.work_folder)
    place = CANDIDATE_SLOT, third.serving_name, third.digest
    resources.fleet.discover().renew_slot(*place, smoke.PROMPTS)
    ended = at_once(stack.environment, "promote", second)
    # The later one may find that the earlier one has settled what it came for.
    assert 0 in [code for code, _ in ended]
    assert all(line.startswith("error: ") for code, line in ended if code), ended
    assert resources.registry.promotion() is None
    live = resources.registry.aliases()["live"]
    (known,) = [known for known in adapters if known.digest == live.digest]
    assert set(resources.fleet.discover().serving(LIVE_SLOT).values()) == {live.digest}
    assert_answers(resources.fleet, LIVE_SLOT, known, fresh, 0)
    ((code, line),) = at_once(stack.environment, "status")
    assert code == 0, line


def test_evidence_of_another_adapter_and_a_comparison_with_a_former_live_are_refused(
    stack: StackOfReplicas, adapters: Sequence[Known], fresh: Answers
) -> None:
    resources = stack.resources
    stage(resources, adapters[0].source, "1")
    first = promote(resources, "1")
    third = stage(resources, adapters[2].source, "3")
    resources.registry.store_verdict(third, passed_verdict("eval_gate", first, first))
    with pytest.raises(LoraAssetsError, match=f"eval_gate judged adapter {first.digest[:12]}"):
        promote(resources, "3")
    stage(resources, adapters[1].source, "2")
    promote(resources, "2")
    resources.registry.store_verdict(third, passed_verdict("eval_gate", third, first))
    resources.registry.set_alias("staged", third)
    with pytest.raises(LoraAssetsError, match=f"compared with {first.digest[:12]}, but live is"):
        promote(resources, "3")
    assert_answers(resources.fleet, LIVE_SLOT, adapters[1], fresh, 1)
