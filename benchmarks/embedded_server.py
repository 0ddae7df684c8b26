"""Requests per second: the embedded server under load, against peft's generate one by one.

    python -m benchmarks.embedded_server [--clients 10] [--rounds 3]

Both answer the same prompts (about 150 tokens, about 20 generated) with the same adapter. Rounds
alternate between the two, so that a busy machine slows both; peft's generate runs with one
and with all of torch's threads, and the faster of them counts. The server is a process of its
own; its client shares the machine with it.
"""

import argparse
import asyncio
import html
import json
import os
import re
import socket
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import botocore.loaders
import httpx
import psutil
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

from lora_assets.embedded.child import is_healthy, start_child
from lora_assets.embedded.server.options import PACKAGED_BASE_MODEL, ServerOptions
from lora_assets.embedded.server.process import serve
from tests.support.random_adapters import save_standard_adapter

PROMPT_TOKENS = 150
REQUESTS = 200
ONE_BY_ONE = 30


def make_prompts(count: int) -> list[list[int]]:
    """Different prompts, as token ids, of about PROMPT_TOKENS from the AWS documentation."""
    operations = botocore.loaders.Loader().load_service_model("ec2", "service-2")["operations"]
    texts = [html.unescape(re.sub("<[^>]+>", "", o["documentation"])) for o in operations.values()]
    tokenizer = AutoTokenizer.from_pretrained(PACKAGED_BASE_MODEL)
    stream = tokenizer(" ".join(texts)).input_ids
    sizes = [PROMPT_TOKENS - 20 + 10 * (i % 5) for i in range(count)]
    starts = range(0, count * PROMPT_TOKENS, PROMPT_TOKENS)
    return [stream[start : start + size] for start, size in zip(starts, sizes, strict=True)]


def answer_tokens(number: int) -> int:
    """How many tokens to generate: 12 to 28, 20 on average, the same for both ways."""
    return 12 + 4 * (number % 5)


def generate_one_by_one(model: PeftModel, prompts: Sequence[list[int]], threads: int) -> float:
    """Requests per second of peft's generate."""
    torch.set_num_threads(threads)
    began = time.perf_counter()
    for number, prompt in enumerate(prompts):
        ids = torch.tensor([prompt])
        count = answer_tokens(number)
        length = {"max_new_tokens": count, "min_new_tokens": count}
        with torch.inference_mode():
            model.generate(
                input_ids=ids, attention_mask=torch.ones_like(ids), do_sample=False, **length
            )
    return len(prompts) / (time.perf_counter() - began)


def drive_server(url: str, prompts: Sequence[list[int]], clients: int, stream: bool) -> float:
    """Requests per second of the server under `clients` concurrent clients."""
    return asyncio.run(_drive(url, prompts, clients, stream))


async def _drive(url: str, prompts: Sequence[list[int]], clients: int, stream: bool) -> float:
    waiting = iter(enumerate(prompts))
    body = {
        "model": "adapter",
        "temperature": 0,
        "ignore_eos": True,
        "stream": stream,
    }
    if stream:
        body["stream_options"] = {"include_usage": True}

    async def client(http: httpx.AsyncClient) -> None:
        for number, prompt in waiting:
            asked = {**body, "prompt": prompt, "max_tokens": answer_tokens(number)}
            reply = await http.post("/v1/completions", json=asked)
            last = reply.text.split("data: ")[-2] if stream else reply.text
            given = json.loads(last)["usage"]["completion_tokens"]
            assert given == answer_tokens(number), reply.text

    async with httpx.AsyncClient(base_url=url, timeout=60, trust_env=False) as http:
        began = time.perf_counter()
        await asyncio.gather(*(client(http) for _ in range(clients)))
        return len(prompts) / (time.perf_counter() - began)


class Figures:
    """Requests per second of each way, round by round, with the processor time that they took.

    Processor time tells of a machine that was busy with something else: it hardly changes
    where requests per second collapse.
    """

    def __init__(self) -> None:
        self.rates: dict[str, list[float]] = {}

    def measure(self, name: str, run: Callable[[], float], requests: int, process: int) -> None:
        """Take one figure and show it; `process` is the id of the process that does the work."""
        before = psutil.Process(process).cpu_times()
        self.rates.setdefault(name, []).append(run())
        after = psutil.Process(process).cpu_times()
        spent = after.user + after.system - before.user - before.system
        rate = self.rates[name][-1]
        cost = 1000 * spent / requests
        print(f"  {name}: {rate:.1f} requests/s, {cost:.1f} ms processor time each", flush=True)

    def summarize(self) -> None:
        """Medians, ranges, and each as a multiple of the faster way of one by one."""
        medians = {name: statistics.median(rates) for name, rates in self.rates.items()}
        one_by_one = max(rate for name, rate in medians.items() if name.startswith("peft"))
        print("medians")
        for name, rate in medians.items():
            spread = f"{min(self.rates[name]):.1f} to {max(self.rates[name]):.1f}"
            print(f"  {name}: {rate:.1f} requests/s ({spread}), {rate / one_by_one:.1f}x")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--clients", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, socket.socket() as probe:
        adapter = Path(folder) / "adapter"
        save_standard_adapter(adapter, seed=0)
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
        probe.close()
        options = ServerOptions(
            port=port, adapters_dir=Path(folder), lora_modules={"adapter": adapter}
        )
        command = [sys.executable, "-m", serve.__module__, options.model_dump_json()]
        process = start_child(command, os.environ)
        try:
            url = f"http://127.0.0.1:{port}"
            if not is_healthy(process, url, 120):
                raise SystemExit("The server did not start.")
            compare(url, process.pid, adapter, arguments)
        finally:
            process.terminate()
            process.wait()


def compare(url: str, server: int, adapter: Path, arguments: argparse.Namespace) -> None:
    """Alternate between the two ways and print the figures; `server` is its process's id."""
    base = AutoModelForCausalLM.from_pretrained(PACKAGED_BASE_MODEL, dtype=torch.float32)
    model = PeftModel.from_pretrained(base, adapter).eval()
    prompts = make_prompts(REQUESTS)
    cores = len(os.sched_getaffinity(0))
    figures = Figures()
    for number in range(arguments.rounds):
        print(f"round {number + 1}, load average {os.getloadavg()[0]:.1f}")
        for threads in sorted({1, cores}):
            figures.measure(
                f"peft generate, {threads} threads",
                partial(generate_one_by_one, model, prompts[:ONE_BY_ONE], threads),
                ONE_BY_ONE,
                os.getpid(),
            )
        for stream in (False, True):
            figures.measure(
                f"server, {arguments.clients} clients, {'' if stream else 'not '}streaming",
                partial(drive_server, url, prompts, arguments.clients, stream),
                len(prompts),
                server,
            )
    figures.summarize()


if __name__ == "__main__":
    main()
