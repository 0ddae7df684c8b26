"""The HTTP API in process: vLLM's status codes and bodies, slots, streams, metrics."""

import asyncio
import json
import re
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from lora_assets.embedded.server.api import create_app
from lora_assets.embedded.server.batching import Engine
from lora_assets.embedded.server.options import ServerOptions
from lora_assets.serving.replica_folder import shared_folder
from lora_assets.serving.vllm_plugin.adapters_folder import digest_folder

Client = httpx.AsyncClient

PROMPT = "[INST] Context: CreateBucket: Creates a new bucket. Question: What is it? [/INST]"
ASK = {"prompt": PROMPT, "temperature": 0, "max_tokens": 8}


@asynccontextmanager
async def client_of(engine: Engine, options: ServerOptions) -> AsyncIterator[Client]:
    judge = FastAPI()
    judge.add_api_route("/v1/models", lambda: {"data": []})
    transport = httpx.ASGITransport(create_app(engine, options, judge))
    async with httpx.AsyncClient(transport=transport, base_url="http://server") as client:
        yield client


@pytest.fixture
def talk(engine: Engine, options: ServerOptions) -> Callable[..., Any]:
    def run(conversation: Callable[[Client], Awaitable[Any]], **changes: Any) -> Any:
        async def whole() -> Any:
            async with client_of(engine, options.model_copy(update=changes)) as client:
                return await conversation(client)

        return asyncio.run(whole())

    return run


async def load(client: Client, name: str, folder: Path, **more: Any) -> httpx.Response:
    body = {"lora_name": name, "lora_path": str(folder), **more}
    return await client.post("/v1/load_lora_adapter", json=body)


async def unload(client: Client, name: str) -> httpx.Response:
    return await client.post("/v1/unload_lora_adapter", json={"lora_name": name})


async def complete(client: Client, **changes: Any) -> httpx.Response:
    return await client.post("/v1/completions", json={**ASK, **changes})


async def text(client: Client, **changes: Any) -> str:
    reply = await complete(client, **changes)
    assert reply.status_code == 200, reply.text
    return str(reply.json()["choices"][0]["text"])


def chunks(reply: httpx.Response) -> list[Any]:
    lines = [line.removeprefix("data: ") for line in reply.text.splitlines() if line]
    assert lines[-1] == "[DONE]"
    return [json.loads(line) for line in lines[:-1]]


def test_loading_naming_and_unloading_answer_as_vllm_does(
    talk: Callable[..., Any], adapters_dir: Path
) -> None:
    async def conversation(client: Client) -> None:
        done = await load(client, "a", adapters_dir / "one")
        assert (done.status_code, done.text) == (
            200,
            "Success: LoRA adapter 'a' added successfully.",
        )
        assert (await load(client, "b", adapters_dir / "one")).status_code == 200
        base, a, b = (await client.get("/v1/models")).json()["data"]
        assert (base["id"], base["parent"], base["max_model_len"]) == ("embedded-base", None, 1024)
        assert [card["root"] for card in (a, b)] == [str(adapters_dir / "one")] * 2
        assert a["parent"] == "embedded-base"
        assert await text(client, model="a") == await text(client, model="b")
        assert await text(client, model="a") != await text(client)
        again = await load(client, "a", adapters_dir / "two")
        assert again.status_code == 400
        assert again.json()["error"]["type"] == "InvalidUserInput"
        assert (await load(client, "a", adapters_dir / "two", load_inplace=True)).is_success
        assert await text(client, model="a") != await text(client, model="b")
        assert (await unload(client, "a")).text == "Success: LoRA adapter 'a' removed successfully."
        gone = await unload(client, "a")
        assert (gone.status_code, gone.json()["error"]["type"]) == (404, "NotFoundError")
        unknown = await complete(client, model="a")
        assert unknown.status_code == 404
        assert unknown.json()["error"] == {
            "message": "The model `a` does not exist. Valid aliases: embedded-base.",
            "type": "NotFoundError",
            "param": "model",
            "code": 404,
        }

    talk(conversation)


def test_two_loads_of_one_name_at_once_give_one_success(
    talk: Callable[..., Any], adapters_dir: Path
) -> None:
    async def conversation(client: Client) -> list[int]:
        loads = (load(client, "a", adapters_dir / name) for name in ("one", "two"))
        return sorted(reply.status_code for reply in await asyncio.gather(*loads))

    assert talk(conversation) == [200, 400]


def test_an_adapter_that_cannot_be_served_is_refused_and_not_half_loaded(
    talk: Callable[..., Any], adapters_dir: Path, tmp_path: Path
) -> None:
    def copy(name: str) -> Path:
        return Path(shutil.copytree(adapters_dir / "one", tmp_path / name))

    def reconfigured(name: str, **changes: Any) -> Path:
        config = copy(name) / "adapter_config.json"
        config.write_text(json.dumps({**json.loads(config.read_text()), **changes}))
        return config.parent

    pickled = copy("pickled")
    (pickled / "training_args.bin").write_bytes(b"\x80\x04.")
    truncated = copy("truncated") / "adapter_model.safetensors"
    truncated.write_bytes(truncated.read_bytes()[:-100])
    cases = [
        (tmp_path / "nowhere", 404, "No adapter found for"),
        (pickled, 400, "training_args.bin"),
        (truncated.parent, 400, "damaged"),
        (adapters_dir / "wide", 500, "LoRA rank 64 is greater than max_lora_rank 32."),
        (reconfigured("shape", r=4), 500, "has shape"),
        (reconfigured("fewer", target_modules=["q_proj"]), 500, "has no place"),
        (reconfigured("other", target_modules=["c_attn"]), 500, "c_attn"),
        (reconfigured("dora", use_dora=True), 500, "use_dora"),
    ]

    async def conversation(client: Client) -> None:
        for folder, status, words in cases:
            reply = await load(client, "bad", folder)
            assert reply.status_code == status, reply.text
            assert words in reply.json()["error"]["message"]
        assert len((await client.get("/v1/models")).json()["data"]) == 1

    talk(conversation)


@pytest.fixture
def slots(adapters_dir: Path, tmp_path: Path) -> Path:
    """A folder of four named adapters; the slot `live` stands for `one`."""
    folder = tmp_path / "adapters"
    for source in adapters_dir.iterdir():
        digest = digest_folder(source)
        shared_folder(str(folder)).place(source, digest)
        shared_folder(str(folder)).set_name(source.name, digest)
    shared_folder(str(folder)).set_slot("live", "one")
    return folder


def test_a_slot_is_renewed_without_a_request_being_refused(
    talk: Callable[..., Any], slots: Path
) -> None:
    async def conversation(client: Client) -> None:
        old, new = await text(client, model="one"), await text(client, model="two")
        firsts = await asyncio.gather(*(text(client, model="live") for _ in range(8)))
        assert firsts == [old] * 8
        roots = {c["id"]: c["root"] for c in (await client.get("/v1/models")).json()["data"]}
        assert roots["live"] == roots["one"] == str((slots / "names" / "one").resolve())
        under_way = [asyncio.create_task(text(client, model="live")) for _ in range(8)]
        await asyncio.sleep(0)
        shared_folder(str(slots)).set_slot("live", "two")
        assert await text(client, model="live") == new
        assert {await task for task in under_way} <= {old, new}
        reply = await complete(client, model="live")
        assert reply.json()["model"] == "two"

    talk(conversation, adapters_dir=slots)


def test_a_name_that_leaves_the_folder_or_leads_nowhere_is_not_served(
    talk: Callable[..., Any], slots: Path, adapters_dir: Path
) -> None:
    (slots / "names" / "outside").symlink_to(adapters_dir / "one")
    (slots / "names" / "broken").symlink_to("../nothing")
    (slots / "slots" / "stray").symlink_to("../../elsewhere")

    async def conversation(client: Client) -> set[int]:
        names = ("outside", "broken", "stray", "../one", "..", "absent", "names/one")
        return {(await complete(client, model=name)).status_code for name in names}

    assert talk(conversation, adapters_dir=slots) == {404}


def test_an_unloaded_adapter_finishes_the_answers_that_it_began(
    talk: Callable[..., Any], adapters_dir: Path
) -> None:
    long = {"model": "a", "max_tokens": 200, "ignore_eos": True}

    async def conversation(client: Client) -> None:
        await load(client, "a", adapters_dir / "one")
        wanted = await text(client, **long)
        streaming = asyncio.create_task(complete(client, **long, stream=True))
        while 'running_lora_adapters="a"' not in (await client.get("/metrics")).text:
            assert not streaming.done()
            # The transport in process never suspends of itself.
            await asyncio.sleep(0)
        assert (await unload(client, "a")).is_success
        assert (await complete(client, model="a")).status_code == 404
        pieces = [chunk["choices"][0]["text"] for chunk in chunks(await streaming)]
        assert "".join(pieces) == wanted

    talk(conversation)


def test_streams_carry_the_same_answer_and_the_usage(talk: Callable[..., Any]) -> None:
    usage = {"stream": True, "stream_options": {"include_usage": True}}
    chat = {
        "messages": [{"role": "user", "content": "What does CreateBucket do?"}],
        "temperature": 0,
        "max_tokens": 8,
        "logprobs": True,
        "top_logprobs": 2,
    }

    async def conversation(client: Client) -> None:
        whole = (await complete(client)).json()
        *parts, last = chunks(await complete(client, **usage))
        assert "".join(p["choices"][0]["text"] for p in parts) == whole["choices"][0]["text"]
        assert (last["choices"], last["usage"]) == ([], whole["usage"])
        said = (await client.post("/v1/chat/completions", json=chat)).json()
        first, *parts, last = chunks(
            await client.post("/v1/chat/completions", json={**chat, **usage})
        )
        assert first["choices"][0]["delta"]["role"] == "assistant"
        content = "".join(p["choices"][0]["delta"]["content"] for p in parts)
        assert content == said["choices"][0]["message"]["content"]
        assert last["usage"] == said["usage"]
        tops = said["choices"][0]["logprobs"]["content"]
        assert all(t["top_logprobs"][0]["token"] == t["token"] for t in tops)

    talk(conversation)


def test_echo_gives_the_log_probabilities_of_a_prompt(talk: Callable[..., Any]) -> None:
    async def conversation(client: Client) -> None:
        reply = (await complete(client, echo=True, logprobs=1, max_tokens=0)).json()
        choice = reply["choices"][0]
        assert choice["text"] == PROMPT
        found = choice["logprobs"]
        assert len(found["tokens"]) == reply["usage"]["prompt_tokens"]
        assert found["token_logprobs"][0] is None
        assert all(value <= 0 for value in found["token_logprobs"][1:])

    talk(conversation)


def test_several_prompts_give_a_choice_each(talk: Callable[..., Any]) -> None:
    async def conversation(client: Client) -> None:
        both = (await complete(client, prompt=[PROMPT, "ListTables"])).json()
        singles = [await text(client, prompt=prompt) for prompt in (PROMPT, "ListTables")]
        assert [choice["text"] for choice in both["choices"]] == singles

    talk(conversation)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"n": 2}, "`n`=2"),
        ({"temperature": 3}, "temperature must be in [0, 2]"),
        ({"top_p": 0}, "top_p must be in (0, 1]"),
        ({"max_tokens": 0}, "max_tokens must be at least 1, got 0."),
        ({"max_tokens": 1025}, "max_tokens=1025 cannot be greater than max_model_len=1024."),
        ({"prompt": [5] * 1025}, "maximum context length is 1024 tokens"),
        ({"prompt": [2048]}, "out of vocabulary"),
        ({"prompt": [[]]}, "cannot be empty"),
        ({"prompt": None}, "prompt"),
        ({"logprobs": 21}, "greater than max allowed: 20"),
        ({"stop": ""}, "empty string"),
        ({"structured_outputs": {"choice": ["A"]}}, "structured_outputs"),
        ({"stream_options": {"include_usage": True}}, "stream=True"),
    ],
)
def test_a_request_that_cannot_be_answered_as_asked_is_a_400(
    talk: Callable[..., Any], change: dict[str, Any], words: str
) -> None:
    reply = talk(lambda client: complete(client, **change))
    assert reply.status_code == 400
    assert reply.json()["error"]["code"] == 400
    assert words in reply.json()["error"]["message"]


def test_malformed_json_and_a_wrong_conversation_are_400s(talk: Callable[..., Any]) -> None:
    async def conversation(client: Client) -> None:
        headers = {"content-type": "application/json"}
        broken = await client.post("/v1/completions", content="{", headers=headers)
        assert (broken.status_code, broken.json()["error"]["type"]) == (400, "Bad Request")
        tool = {"messages": [{"role": "tool", "content": "x"}]}
        refused = await client.post("/v1/chat/completions", json=tool)
        assert "system message" in refused.json()["error"]["message"]
        assert refused.status_code == 400

    talk(conversation)


def test_the_api_key_guards_everything_but_health_and_metrics(talk: Callable[..., Any]) -> None:
    async def conversation(client: Client) -> None:
        for path in ("/v1/models", "/judge/v1/models"):
            for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "secret"}):
                refused = await client.get(path, headers=headers)
                assert (refused.status_code, refused.json()) == (401, {"error": "Unauthorized"})
            right = {"Authorization": "Bearer secret"}
            assert (await client.get(path, headers=right)).status_code == 200
        for path in ("/health", "/metrics", "/version"):
            assert (await client.get(path)).status_code == 200

    talk(conversation, api_key="secret")


def test_metrics_count_what_was_answered(talk: Callable[..., Any]) -> None:
    def value(metrics: str, name: str) -> float:
        found = re.search(rf"^{re.escape(name)}(?:{{[^}}]*}})? (\S+)$", metrics, re.MULTILINE)
        assert found, name
        return float(found[1])

    async def conversation(client: Client) -> None:
        before = (await client.get("/metrics")).text
        usage = (await complete(client)).json()["usage"]
        after = (await client.get("/metrics")).text
        grown = {
            "vllm:prompt_tokens_total": usage["prompt_tokens"],
            "vllm:generation_tokens_total": usage["completion_tokens"],
            "vllm:e2e_request_latency_seconds_count": 1,
            "vllm:time_to_first_token_seconds_count": 1,
            "vllm:inter_token_latency_seconds_count": usage["completion_tokens"] - 1,
        }
        for name, growth in grown.items():
            assert value(after, name) - value(before, name) == growth, name

    talk(conversation)
