"""The engine alone: what it answers, and whom."""

import asyncio
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

from lora_assets.embedded.server import batching, calls
from lora_assets.embedded.server.batching import Engine
from lora_assets.embedded.server.calls import Adapter, Asked, Delta, EngineStopped, News
from lora_assets.embedded.server.lora import load_lora
from lora_assets.embedded.server.options import PACKAGED_BASE_MODEL, ServerOptions
from lora_assets.embedded.server.process import start_engine

Adapters = Mapping[str | None, Adapter | None]

NAMES = ("one", "two", "three")
TEXTS = (
    "[INST] Context: CreateBucket: Creates a new S3 bucket. Question: What does it do? [/INST]",
    "DescribeInstances",
    "[INST] Context: " + "ListTables: Lists the tables of an account. " * 9 + "[/INST]",
    "PutItem: Creates a new item, or replaces an old item with a new item. GetItem:",
)


@pytest.fixture(scope="module")
def prompts() -> list[list[int]]:
    tokenizer = AutoTokenizer.from_pretrained(PACKAGED_BASE_MODEL)
    return [tokenizer(text).input_ids for text in TEXTS]


@pytest.fixture(scope="module")
def peft_model(adapters_dir: Path) -> PeftModel:
    base = AutoModelForCausalLM.from_pretrained(PACKAGED_BASE_MODEL, dtype=torch.float32)
    model = PeftModel.from_pretrained(base, adapters_dir / NAMES[0], adapter_name=NAMES[0])
    for name in NAMES[1:]:
        model.load_adapter(adapters_dir / name, name)
    return model.eval()


@pytest.fixture(scope="module")
def adapters(engine: Engine, adapters_dir: Path) -> Adapters:
    shapes, layers = engine.decoder.shapes, engine.decoder.layers
    loaded = {name: load_lora(adapters_dir / name, shapes, layers, 32) for name in NAMES}
    return {None: None, **{name: Adapter(name, weights) for name, weights in loaded.items()}}


def generate(
    model: PeftModel, adapter: str | None, prompt: list[int], count: int, **more: Any
) -> list[int]:
    ids = torch.tensor([prompt])
    asked = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "max_new_tokens": count}
    if adapter is not None:
        model.set_adapter(adapter)
    with torch.inference_mode(), nullcontext() if adapter else model.disable_adapter():
        answer = model.generate(**asked, do_sample=False, **more)
    tokens: list[int] = answer[0, len(prompt) :].tolist()
    return tokens


def answers(engine: Engine, *asked: Asked) -> list[Delta]:
    """The whole answers to requests that come at the same time."""

    async def gather() -> list[Delta]:
        calls = [engine.submit(each, time.perf_counter()) for each in asked]
        return [delta for call in calls async for delta in call]

    return asyncio.run(gather())


def test_a_mixed_batch_answers_each_row_as_peft_generate_does(
    engine: Engine, adapters: Adapters, peft_model: PeftModel, prompts: list[list[int]]
) -> None:
    # More rows than the batch has room for, so that rows also join and leave half-way.
    cases = [(name, prompt) for prompt in prompts for name in (None, *NAMES)]
    numbered = [(name, prompt, 6 + number) for number, (name, prompt) in enumerate(cases)]
    asked = [Asked(prompt, count, adapters[name]) for name, prompt, count in numbered]
    given = [list(delta.tokens) for delta in answers(engine, *asked)]
    assert given == [generate(peft_model, *case) for case in numbered]
    assert len({tuple(tuple(tokens[:6]) for tokens in given[name::4]) for name in range(4)}) == 4


def test_an_answer_may_fill_the_whole_context_and_no_more(
    engine: Engine, peft_model: PeftModel, prompts: list[list[int]]
) -> None:
    # Long enough for the cache to slide while a shorter row runs beside it.
    full, beside = Asked(prompts[2] * 4, 2000, ignore_eos=True), Asked(prompts[1], 300, None, True)
    long, short = answers(engine, full, beside)
    assert len(long.tokens) == 1024 - len(prompts[2] * 4)
    assert long.finish_reason == "length"
    assert list(short.tokens) == generate(peft_model, None, prompts[1], 300, eos_token_id=-1)


def test_logprobs_are_those_of_the_model(
    engine: Engine, peft_model: PeftModel, prompts: list[list[int]]
) -> None:
    (given,) = answers(engine, Asked(prompts[0], 3, logprobs=2))
    ids = torch.tensor([[*prompts[0], *given.tokens]])
    with torch.inference_mode(), peft_model.disable_adapter():
        wanted = peft_model(input_ids=ids).logits[0, -4:-1].log_softmax(-1)
    own = wanted.gather(1, ids[0, -3:, None])[:, 0]
    assert [each.token for each in given.logprobs] == list(given.tokens)
    assert torch.allclose(torch.tensor([each.logprob for each in given.logprobs]), own, atol=1e-3)
    tops = [[token for token, _ in each.top] for each in given.logprobs]
    assert tops == wanted.topk(2).indices.tolist()


def test_a_stream_keeps_its_order_though_two_threads_produce_it(
    engine: Engine, prompts: list[list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    written = threading.Event()

    def deliver(news: Sequence[News]) -> None:
        if threading.current_thread().name == "reading":
            written.wait(0.3)
        calls.deliver(news)
        written.set()

    async def stream() -> list[int]:
        call = engine.submit(Asked(prompts[0], 12, stream=True), time.perf_counter())
        return [token async for delta in call for token in delta.tokens]

    (whole,) = answers(engine, Asked(prompts[0], 12))
    monkeypatch.setattr(batching, "deliver", deliver)
    assert asyncio.run(stream()) == list(whole.tokens)


@pytest.fixture
def narrow_engine(options: ServerOptions) -> Iterator[Engine]:
    engine = start_engine(options.model_copy(update={"max_loras": 1, "max_num_seqs": 4}))
    yield engine
    engine.close()


def test_adapters_beyond_max_loras_wait_for_their_turn(
    narrow_engine: Engine, adapters: Adapters, peft_model: PeftModel, prompts: list[list[int]]
) -> None:
    names = ["one", "two", None, "three", "one"]
    asked = [Asked(prompts[1], 12, adapters[name]) for name in names]
    wanted = [generate(peft_model, name, prompts[1], 12) for name in names]
    assert [list(delta.tokens) for delta in answers(narrow_engine, *asked)] == wanted


def test_closing_the_engine_ends_the_calls_under_way(
    narrow_engine: Engine, prompts: list[list[int]]
) -> None:
    async def close_in_between() -> None:
        endless = Asked(prompts[0], 1000, ignore_eos=True, stream=True)
        async for _ in narrow_engine.submit(endless, time.perf_counter()):
            await asyncio.to_thread(narrow_engine.close)

    with pytest.raises(EngineStopped):
        asyncio.run(close_in_between())
    with pytest.raises(EngineStopped):
        answers(narrow_engine, Asked(prompts[0], 1))
