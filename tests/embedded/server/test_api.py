"""The HTTP API in process: vLLM's status codes and bodies, streams, metrics."""

import json
import re
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from lora_assets.embedded.server.api import create_app
from lora_assets.embedded.server.batching import Engine
from lora_assets.embedded.server.options import ServerOptions
from tests.support.doubles.broken_vllm import listening

PROMPT = "[INST] Context: CreateBucket: Creates a new bucket. Question: What is it? [/INST]"
ASK = {"prompt": PROMPT, "temperature": 0, "max_tokens": 8}
MESSAGE = {"role": "user", "content": "What does CreateBucket do?"}
CHAT = {"messages": [MESSAGE], "temperature": 0, "max_tokens": 8}
USAGE = {"stream": True, "stream_options": {"include_usage": True}}


@contextmanager
def connected(app: FastAPI) -> Iterator[httpx.Client]:
    with listening(app) as url, httpx.Client(base_url=url, timeout=60) as client:
        yield client


@pytest.fixture
def client(engine: Engine, options: ServerOptions) -> Iterator[httpx.Client]:
    with connected(create_app(engine, options)) as client:
        yield client


def load(client: httpx.Client, name: str, folder: Path, **more: Any) -> httpx.Response:
    body = {"lora_name": name, "lora_path": str(folder), **more}
    return client.post("/v1/load_lora_adapter", json=body)


def unload(client: httpx.Client, name: str) -> httpx.Response:
    return client.post("/v1/unload_lora_adapter", json={"lora_name": name})


def complete(client: httpx.Client, **changes: Any) -> httpx.Response:
    return client.post("/v1/completions", json={**ASK, **changes})


def chat(client: httpx.Client, **changes: Any) -> httpx.Response:
    return client.post("/v1/chat/completions", json={**CHAT, **changes})


def text(client: httpx.Client, **changes: Any) -> str:
    reply = complete(client, **changes)
    assert reply.status_code == 200, reply.text
    return str(reply.json()["choices"][0]["text"])


def chunks(reply: httpx.Response) -> list[Any]:
    lines = [line.removeprefix("data: ") for line in reply.text.splitlines() if line]
    assert lines[-1] == "[DONE]"
    return [json.loads(line) for line in lines[:-1]]


def test_loading_naming_and_unloading_answer_as_vllm_does(
    client: httpx.Client, adapters_dir: Path
) -> None:
    done = load(client, "a", adapters_dir / "one")
    assert (done.status_code, done.text) == (200, "Success: LoRA adapter 'a' added successfully.")
    assert load(client, "b", adapters_dir / "one").status_code == 200
    base, a, b = client.get("/v1/models").json()["data"]
    assert (base["id"], base["parent"], base["max_model_len"]) == ("embedded-base", None, 1024)
    assert [card["root"] for card in (a, b)] == [str(adapters_dir / "one")] * 2
    assert a["parent"] == "embedded-base"
    assert text(client, model="a") == text(client, model="b")
    assert text(client, model="a") != text(client)
    again = load(client, "a", adapters_dir / "two")
    assert (again.status_code, again.json()["error"]["type"]) == (400, "InvalidUserInput")
    assert load(client, "a", adapters_dir / "two", load_inplace=True).is_success
    assert text(client, model="a") != text(client, model="b")
    assert unload(client, "a").text == "Success: LoRA adapter 'a' removed successfully."
    gone = unload(client, "a")
    assert (gone.status_code, gone.json()["error"]["type"]) == (404, "NotFoundError")
    unknown = complete(client, model="a")
    message = "The model `a` does not exist. Valid aliases: embedded-base."
    error = {"message": message, "type": "NotFoundError", "param": "model", "code": 404}
    assert (unknown.status_code, unknown.json()) == (404, {"error": error})


def test_two_loads_of_one_name_at_once_give_one_success(
    client: httpx.Client, adapters_dir: Path
) -> None:
    with ThreadPoolExecutor() as pool:
        loads = [pool.submit(load, client, "a", adapters_dir / name) for name in ("one", "two")]
    assert sorted(each.result().status_code for each in loads) == [200, 400]


@pytest.mark.parametrize(
    ("change", "status", "words"),
    [
        ({"r": 4}, 500, "has shape"),
        ({"target_modules": ["q_proj"]}, 500, "has no place"),
        ({"target_modules": ["c_attn"]}, 500, "c_attn"),
        ({"use_dora": True}, 500, "use_dora"),
        ("pickle", 400, "training_args.bin"),
        ("truncated", 400, "damaged"),
        ("nowhere", 404, "No adapter found for"),
        ("wide", 500, "LoRA rank 64 is greater than max_lora_rank 32."),
    ],
)
def test_an_adapter_that_cannot_be_served_is_refused_and_not_half_loaded(
    client: httpx.Client, adapters_dir: Path, tmp_path: Path, change: Any, status: int, words: str
) -> None:
    folder = Path(shutil.copytree(adapters_dir / "one", tmp_path / "copy"))
    config, weights = folder / "adapter_config.json", folder / "adapter_model.safetensors"
    if change == "pickle":
        (folder / "training_args.bin").write_bytes(b"\x80\x04.")
    elif change == "truncated":
        weights.write_bytes(weights.read_bytes()[:-100])
    elif isinstance(change, str):
        folder = adapters_dir / change
    else:
        config.write_text(json.dumps({**json.loads(config.read_text()), **change}))
    reply = load(client, "bad", folder)
    assert reply.status_code == status, reply.text
    assert words in reply.json()["error"]["message"]
    assert len(client.get("/v1/models").json()["data"]) == 1


def test_an_unloaded_adapter_finishes_the_answers_that_it_began(
    client: httpx.Client, adapters_dir: Path
) -> None:
    long = {"model": "a", "max_tokens": 400, "ignore_eos": True}
    load(client, "a", adapters_dir / "one")
    wanted = text(client, **long)
    with ThreadPoolExecutor() as pool:
        streaming = pool.submit(complete, client, **long, stream=True)
        while 'running_lora_adapters="a"' not in client.get("/metrics").text:
            assert not streaming.done()
        assert unload(client, "a").is_success
        assert complete(client, model="a").status_code == 404
        assert not streaming.done()
    pieces = [chunk["choices"][0]["text"] for chunk in chunks(streaming.result())]
    assert "".join(pieces) == wanted


def test_a_stream_of_a_completion_carries_the_whole_answer(client: httpx.Client) -> None:
    whole = complete(client, logprobs=1).json()
    *parts, last = chunks(complete(client, logprobs=1, **USAGE))
    assert len(parts) == whole["usage"]["completion_tokens"]
    assert "".join(p["choices"][0]["text"] for p in parts) == whole["choices"][0]["text"]
    for name, values in whole["choices"][0]["logprobs"].items():
        assert [v for p in parts for v in p["choices"][0]["logprobs"][name]] == values, name
    assert (last["choices"], last["usage"]) == ([], whole["usage"])
    assert {each["model"] for each in (whole, *parts, last)} == {"embedded-base"}


def test_a_stream_of_a_chat_carries_the_whole_answer(client: httpx.Client) -> None:
    whole = chat(client).json()
    first, *parts, last = chunks(chat(client, **USAGE))
    assert first["choices"][0]["delta"]["role"] == "assistant"
    content = "".join(p["choices"][0]["delta"]["content"] for p in parts)
    assert content == whole["choices"][0]["message"]["content"]
    assert last["usage"] == whole["usage"]
    assert {each["model"] for each in (whole, first, *parts, last)} == {"embedded-base"}


@pytest.mark.parametrize(
    ("ask", "change", "words"),
    [
        (complete, {"temperature": 0.7}, "set `temperature` to 0 (it is 0.7)"),
        (complete, {"temperature": None}, "set `temperature` to 0 (it is 1)"),
        (complete, {"n": 2}, "`n`=2 is not supported"),
        (complete, {"echo": True}, "`echo`=True is not supported"),
        (complete, {"stop": ["."]}, "`stop`=['.'] is not supported"),
        (complete, {"prompt_logprobs": 0}, "`prompt_logprobs`=0 is not supported"),
        (complete, {"structured_outputs": {"choice": ["A"]}}, "structured_outputs"),
        (complete, {"max_tokens": 0}, "max_tokens must be at least 1, got 0."),
        (complete, {"max_tokens": 1025}, "=1025 cannot be greater than max_model_len=1024."),
        (complete, {"prompt": [5] * 1025}, "maximum context length is 1024 tokens"),
        (complete, {"prompt": [2048]}, "out of vocabulary"),
        (complete, {"prompt": []}, "cannot be empty"),
        (complete, {"prompt": ["a", "b"]}, "prompt"),
        (complete, {"logprobs": 21}, "less than or equal to 20"),
        (complete, {"stream_options": {"include_usage": True}}, "stream=True"),
        (chat, {"messages": [{"role": "tool", "content": "x"}]}, "system message"),
        (chat, {"logprobs": True}, "`logprobs`=True is not supported"),
    ],
)
def test_a_request_that_cannot_be_answered_as_asked_is_a_400(
    client: httpx.Client, ask: Callable[..., httpx.Response], change: Any, words: str
) -> None:
    reply = ask(client, **change)
    assert (reply.status_code, reply.json()["error"]["code"]) == (400, 400)
    assert words in reply.json()["error"]["message"]


def test_malformed_json_is_a_400(client: httpx.Client) -> None:
    headers = {"content-type": "application/json"}
    broken = client.post("/v1/completions", content="{", headers=headers)
    assert (broken.status_code, broken.json()["error"]["type"]) == (400, "Bad Request")


def test_parameters_that_change_nothing_are_taken(client: httpx.Client) -> None:
    neutral = {"n": 1, "echo": False, "stop": None, "seed": 7, "top_p": 0.9, "user": "me"}
    assert text(client, **neutral) == text(client)


def test_the_api_key_guards_the_judge_too(engine: Engine, options: ServerOptions) -> None:
    judge = FastAPI()
    judge.add_api_route("/v1/models", lambda: {"data": []})
    guarded = options.model_copy(update={"api_key": "secret"})
    with connected(create_app(engine, guarded, judge)) as client:
        for path in ("/v1/models", "/judge/v1/models"):
            assert client.get(path).status_code == 401
            right = {"Authorization": "Bearer secret"}
            assert client.get(path, headers=right).status_code == 200


def test_metrics_count_what_was_answered(client: httpx.Client) -> None:
    def values() -> dict[str, float]:
        lines = re.findall(r"^(vllm:\w+){[^}]*} (\S+)$", client.get("/metrics").text, re.MULTILINE)
        return {name: float(value) for name, value in lines}

    before = values()
    usage = complete(client).json()["usage"]
    after = values()
    growth = {
        "vllm:prompt_tokens_total": usage["prompt_tokens"],
        "vllm:generation_tokens_total": usage["completion_tokens"],
        "vllm:e2e_request_latency_seconds_count": 1,
        "vllm:time_to_first_token_seconds_count": 1,
        "vllm:inter_token_latency_seconds_count": usage["completion_tokens"] - 1,
    }
    assert {name: after[name] - before[name] for name in growth} == growth
