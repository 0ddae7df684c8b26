"""Requests per second: the embedded server under load, against peft's generate one by one.

    python benchmarks/embedded_server.py [--clients 10] [--rounds 3]

Both answer the same prompts (about 150 tokens, 20 tokens each) with the same adapter. Rounds
alternate between the two, so that a busy machine slows both; peft's generate runs with one
and with all of torch's threads, and the faster of them counts. The server is a process of its
own; its client shares the machine with it.
"""

import argparse
import asyncio
import html
import json
import multiprocessing
import os
import re
import socket
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import botocore.loaders
import httpx
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer

from lora_assets.engines.server.options import PACKAGED_BASE_MODEL, ServerOptions
from lora_assets.engines.server.serve import serve

PROMPT_TOKENS = 150
ANSWER_TOKENS = 20


def make_adapter(folder: Path) -> None:
    """The specification's standard profile (r 8, q k v o) with weights that change answers."""
    base = AutoModelForCausalLM.from_pretrained(PACKAGED_BASE_MODEL, dtype=torch.float32)
    targets = ["q_proj", "k_proj", "v_proj", "o_proj"]
    model = get_peft_model(base, LoraConfig(r=8, lora_alpha=16, target_modules=targets))
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.02)
    model.save_pretrained(folder)
    (folder / "README.md").unlink()


def make_prompts(count: int) -> list[list[int]]:
    """Different prompts, as token ids, of about PROMPT_TOKENS from the AWS documentation."""
    operations = botocore.loaders.Loader().load_service_model("ec2", "service-2")["operations"]
    texts = [html.unescape(re.sub("<[^>]+>", "", o["documentation"])) for o in operations.values()]
    tokenizer = AutoTokenizer.from_pretrained(PACKAGED_BASE_MODEL)
    stream = tokenizer(" ".join(texts)).input_ids
    sizes = [PROMPT_TOKENS - 20 + 10 * (i % 5) for i in range(count)]
    starts = range(0, count * PROMPT_TOKENS, PROMPT_TOKENS)
    return [stream[start : start + size] for start, size in zip(starts, sizes, strict=True)]


def generate_one_by_one(model: PeftModel, prompts: Sequence[list[int]], threads: int) -> float:
    """Requests per second of peft's generate."""
    torch.set_num_threads(threads)
    began = time.perf_counter()
    for prompt in prompts:
        ids = torch.tensor([prompt])
        length = {"max_new_tokens": ANSWER_TOKENS, "min_new_tokens": ANSWER_TOKENS}
        with torch.inference_mode():
            model.generate(
                input_ids=ids, attention_mask=torch.ones_like(ids), do_sample=False, **length
            )
    return len(prompts) / (time.perf_counter() - began)


async def ask_server(url: str, prompts: Sequence[list[int]], clients: int, stream: bool) -> float:
    """Requests per second of the server under `clients` concurrent clients."""
    waiting = iter(prompts)
    body = {
        "model": "adapter",
        "temperature": 0,
        "max_tokens": ANSWER_TOKENS,
        "ignore_eos": True,
        "stream": stream,
    }
    if stream:
        body["stream_options"] = {"include_usage": True}

    async def client(http: httpx.AsyncClient) -> None:
        for prompt in waiting:
            reply = await http.post("/v1/completions", json={**body, "prompt": prompt})
            last = reply.text.split("data: ")[-2] if stream else reply.text
            assert json.loads(last)["usage"]["completion_tokens"] == ANSWER_TOKENS, reply.text

    async with httpx.AsyncClient(base_url=url, timeout=60, trust_env=False) as http:
        began = time.perf_counter()
        await asyncio.gather(*(client(http) for _ in range(clients)))
        return len(prompts) / (time.perf_counter() - began)


def wait_until_ready(url: str, process: multiprocessing.process.BaseProcess) -> None:
    """Until the server answers; raises when its process ends first."""
    while process.is_alive():
        try:
            httpx.get(f"{url}/health", trust_env=False)
            return
        except httpx.TransportError:
            process.join(0.1)
    raise SystemExit("The server did not start.")


def measure(name: str, run: Callable[[], float], figures: dict[str, list[float]]) -> None:
    """Take one figure and show it."""
    figures.setdefault(name, []).append(run())
    print(f"  {name}: {figures[name][-1]:.1f} requests/s", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--clients", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, socket.socket() as probe:
        adapter = Path(folder) / "adapter"
        make_adapter(adapter)
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
        probe.close()
        options = ServerOptions(
            port=port, adapters_dir=Path(folder), lora_modules={"adapter": adapter}
        )
        process = multiprocessing.get_context("spawn").Process(target=serve, args=(options,))
        process.start()
        try:
            compare(f"http://127.0.0.1:{port}", process, adapter, arguments)
        finally:
            process.terminate()
            process.join()


def compare(
    url: str,
    process: multiprocessing.process.BaseProcess,
    adapter: Path,
    arguments: argparse.Namespace,
) -> None:
    """Alternate between the two ways and print the figures."""
    base = AutoModelForCausalLM.from_pretrained(PACKAGED_BASE_MODEL, dtype=torch.float32)
    model = PeftModel.from_pretrained(base, adapter).eval()
    prompts = make_prompts(200)
    wait_until_ready(url, process)
    cores = len(os.sched_getaffinity(0))
    figures: dict[str, list[float]] = {}
    for number in range(arguments.rounds):
        print(f"round {number + 1}, load average {os.getloadavg()[0]:.1f}")
        for threads in sorted({1, cores}):
            measure(
                f"peft generate, {threads} threads",
                lambda threads=threads: generate_one_by_one(model, prompts[:30], threads),
                figures,
            )
        torch.set_num_threads(1)
        for stream in (False, True):
            measure(
                f"server, {arguments.clients} clients, {'' if stream else 'not '}streaming",
                lambda stream=stream: asyncio.run(
                    ask_server(url, prompts, arguments.clients, stream)
                ),
                figures,
            )
    medians = {name: statistics.median(values) for name, values in figures.items()}
    one_by_one = max(value for name, value in medians.items() if name.startswith("peft"))
    print("medians")
    for name, value in medians.items():
        spread = f"{min(figures[name]):.1f} to {max(figures[name]):.1f}"
        print(f"  {name}: {value:.1f} requests/s ({spread}), {value / one_by_one:.1f}x")


if __name__ == "__main__":
    main()
