"""The engine alone: what it answers, and whom."""

import asyncio
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

from lora_assets.embedded.server.batching import Engine
from lora_assets.embedded.server.calls import Adapter, Delta, EngineStopped
from lora_assets.embedded.server.lora import load_lora
from lora_assets.embedded.server.options import PACKAGED_BASE_MODEL, ServerOptions
from lora_assets.embedded.server.process import start_engine
from lora_assets.embedded.server.sampling import Sampling

GREEDY = Sampling(max_tokens=12, temperature=0)
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
    model = PeftModel.from_pretrained(base, adapters_dir / "one", adapter_name="one")
    for name in ("two", "three"):
        model.load_adapter(adapters_dir / name, name)
    return model.eval()


@pytest.fixture(scope="module")
def adapters(engine: Engine, adapters_dir: Path) -> dict[str | None, Adapter | None]:
    decoder = engine.decoder
    found: dict[str | None, Adapter | None] = {None: None}
    for name in ("one", "two", "three"):
        weights = load_lora(adapters_dir / name, decoder.shapes, decoder.layers, 32)
        found[name] = Adapter(name, weights)
    return found


def generate(model: PeftModel, adapter: str | None, prompt: list[int], count: int) -> list[int]:
    ids = torch.tensor([prompt])
    ask = {"attention_mask": torch.ones_like(ids), "max_new_tokens": count, "do_sample": False}
    with torch.inference_mode():
        if adapter is None:
            with model.disable_adapter():
                found = model.generate(input_ids=ids, **ask)
        else:
            model.set_adapter(adapter)
            found = model.generate(input_ids=ids, **ask)
    return found[0, len(prompt) :].tolist()


async def answer(
    engine: Engine,
    prompt: Sequence[int],
    adapter: Adapter | None = None,
    sampling: Sampling = GREEDY,
    stream: bool = False,
) -> list[Delta]:
    call = engine.submit([prompt], sampling, adapter, stream, time.perf_counter())
    return [delta async for delta in call]


def tokens_of(deltas: Sequence[Delta]) -> list[int]:
    return [token for delta in deltas for token in delta.tokens]


def text_of(deltas: Sequence[Delta]) -> str:
    return "".join(delta.text for delta in deltas)


def test_a_mixed_batch_answers_each_row_as_peft_generate_does(
    engine: Engine,
    adapters: dict[str | None, Adapter | None],
    peft_model: PeftModel,
    prompts: list[list[int]],
) -> None:
    # More rows than the batch has room for, so that rows also join and leave half-way.
    cases = [(name, prompt) for prompt in prompts for name in (None, "one", "two", "three")]
    counts = [6 + number for number in range(len(cases))]

    async def ask() -> list[list[Delta]]:
        return await asyncio.gather(
            *(
                answer(engine, prompt, adapters[name], Sampling(count, temperature=0))
                for (name, prompt), count in zip(cases, counts, strict=True)
            )
        )

    found = [tokens_of(deltas) for deltas in asyncio.run(ask())]
    wanted = [
        generate(peft_model, name, prompt, count)
        for (name, prompt), count in zip(cases, counts, strict=True)
    ]
    assert found == wanted
    each = [tuple(tuple(tokens[:6]) for tokens in found[name::4]) for name in range(4)]
    assert len(set(each)) == 4


def test_an_answer_may_fill_the_whole_context_and_no_more(
    engine: Engine, peft_model: PeftModel, prompts: list[list[int]]
) -> None:
    # Long enough for the cache to slide while a shorter row runs beside it.
    full = Sampling(max_tokens=2000, temperature=0, ignore_eos=True)

    async def ask() -> tuple[list[Delta], list[Delta]]:
        short = Sampling(max_tokens=300, temperature=0, ignore_eos=True)
        return await asyncio.gather(
            answer(engine, prompts[2] * 4, None, full), answer(engine, prompts[1], None, short)
        )

    long, short = asyncio.run(ask())
    assert len(tokens_of(long)) == 1024 - len(prompts[2] * 4)
    assert long[-1].finish_reason == "length"
    ids = torch.tensor([prompts[1]])
    with torch.inference_mode(), peft_model.disable_adapter():
        wanted = peft_model.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=300,
            do_sample=False,
            eos_token_id=-1,
        )
    assert tokens_of(short) == wanted[0, len(prompts[1]) :].tolist()


def test_a_stream_says_the_same_as_a_whole_answer(
    engine: Engine, adapters: dict[str | None, Adapter | None], prompts: list[list[int]]
) -> None:
    whole = asyncio.run(answer(engine, prompts[0], adapters["one"]))
    stream = asyncio.run(answer(engine, prompts[0], adapters["one"], stream=True))
    assert len(whole) == 1
    assert len(stream) == len(whole[0].tokens)
    assert tokens_of(stream) == tokens_of(whole)
    assert text_of(stream) == text_of(whole)


@pytest.mark.parametrize("stream", [False, True])
def test_a_stop_string_ends_the_answer_before_it(
    engine: Engine, prompts: list[list[int]], stream: bool
) -> None:
    whole = text_of(asyncio.run(answer(engine, prompts[0])))
    stop = whole[5:8]
    stopping = Sampling(12, temperature=0, stop=(stop, "never said"))
    found = asyncio.run(answer(engine, prompts[0], None, stopping, stream))
    assert text_of(found) == whole[: whole.index(stop)]
    assert (found[-1].finish_reason, found[-1].stop_reason) == ("stop", stop)


def test_a_seed_gives_the_same_answer_in_any_batch(
    engine: Engine, prompts: list[list[int]]
) -> None:
    chance = Sampling(12, temperature=1.5, top_p=0.95, seed=7)

    async def beside_others() -> list[Delta]:
        others = [answer(engine, prompt, None, Sampling(12)) for prompt in prompts]
        return (await asyncio.gather(answer(engine, prompts[1], None, chance), *others))[0]

    alone = asyncio.run(answer(engine, prompts[1], None, chance))
    assert tokens_of(asyncio.run(beside_others())) == tokens_of(alone)
    other = Sampling(12, temperature=1.5, top_p=0.95, seed=8)
    assert tokens_of(asyncio.run(answer(engine, prompts[1], None, other))) != tokens_of(alone)


def test_a_tiny_nucleus_is_greedy(engine: Engine, prompts: list[list[int]]) -> None:
    greedy = asyncio.run(answer(engine, prompts[0]))
    narrow = Sampling(12, temperature=2.0, top_p=1e-6)
    assert tokens_of(asyncio.run(answer(engine, prompts[0], None, narrow))) == tokens_of(greedy)


def test_logprobs_are_those_of_the_model(
    engine: Engine, peft_model: PeftModel, prompts: list[list[int]]
) -> None:
    asking = Sampling(3, temperature=0, logprobs=2, prompt_logprobs=True)
    (found,) = asyncio.run(answer(engine, prompts[0], None, asking))
    ids = torch.tensor([[*prompts[0], *found.tokens]])
    with torch.inference_mode(), peft_model.disable_adapter():
        wanted = peft_model(input_ids=ids).logits[0, :-1].log_softmax(-1)
    said = [*found.prompt_logprobs, *found.logprobs]
    own = wanted.gather(1, ids[0, 1:, None])[:, 0]
    assert [each.token for each in said] == ids[0, 1:].tolist()
    assert torch.allclose(torch.tensor([each.logprob for each in said]), own, atol=1e-3)
    assert [t for t, _ in said[-1].top] == wanted[-1].topk(2).indices.tolist()


@pytest.fixture
def narrow_engine(options: ServerOptions) -> Iterator[Engine]:
    engine = start_engine(options.model_copy(update={"max_loras": 1, "max_num_seqs": 4}))
    yield engine
    engine.close()


def test_adapters_beyond_max_loras_wait_for_their_turn(
    narrow_engine: Engine,
    adapters: dict[str | None, Adapter | None],
    peft_model: PeftModel,
    prompts: list[list[int]],
) -> None:
    names = ["one", "two", None, "three", "one"]

    async def ask() -> list[list[Delta]]:
        asking = (answer(narrow_engine, prompts[1], adapters[name]) for name in names)
        return await asyncio.gather(*asking)

    wanted = [generate(peft_model, name, prompts[1], 12) for name in names]
    assert [tokens_of(deltas) for deltas in asyncio.run(ask())] == wanted


def test_closing_the_engine_ends_the_calls_under_way(
    narrow_engine: Engine, prompts: list[list[int]]
) -> None:
    async def close_in_between() -> None:
        endless = Sampling(1000, temperature=0, ignore_eos=True)
        now = time.perf_counter()
        call = narrow_engine.submit([prompts[0]], endless, None, True, now)
        async for _ in call:
            await asyncio.to_thread(narrow_engine.close)

    with pytest.raises(EngineStopped):
        asyncio.run(close_in_between())
    with pytest.raises(EngineStopped):
        asyncio.run(answer(narrow_engine, prompts[0]))
