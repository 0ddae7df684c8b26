"""Servers that the conformance tests hold against the same promises.

VLLM_PYTHON chooses real vLLM (`make test-vllm`); without it the embedded server is tested, so
that it can't drift from the real one.
"""

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from lora_assets.embedded.child import is_healthy, start_child
from lora_assets.embedded.server.options import ServerOptions
from lora_assets.embedded.vllm_server import vllm_command
from lora_assets.gates import smoke
from lora_assets.resources.fleet import Fleet
from lora_assets.serving.replica import Completion
from lora_assets.serving.replicas import same_logprobs
from lora_assets.settings import read_settings
from lora_assets.stack_resources import Resources, make_resources
from tests.support.stack import free_port, stack_environment

ADAPTERS = 6
START_SECONDS = 600
"""Two real ones at once on two cores take minutes."""


@dataclass(frozen=True)
class Known:
    """An adapter, the name that belongs to its bytes, and where they are."""

    name: str
    digest: str
    source: Path


@dataclass
class RunningServer:
    """A model server as a process of its own, which can be killed and started again."""

    options: ServerOptions
    log: Path
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://{self.options.host}:{self.options.port}"

    def start(self) -> None:
        python = os.environ.get("VLLM_PYTHON")
        program = "lora_assets.embedded.server.process"
        command: Sequence[str] = [sys.executable, "-m", program, self.options.model_dump_json()]
        environment: Mapping[str, str] = os.environ
        if python:
            command, environment = vllm_command(python, self.options)
        with self.log.open("ab") as output:
            self.process = start_child(command, environment, output)

    def await_health(self) -> None:
        assert self.process is not None
        assert is_healthy(self.process, self.url, START_SECONDS), self.log.read_text()[-3000:]

    def kill(self) -> None:
        if self.process is None or self.process.poll() is not None:
            return
        # vLLM's engine and workers outlive an API server that is killed.
        family = psutil.Process(self.process.pid).children(recursive=True)
        for member in (self.process, *family):
            with suppress(psutil.NoSuchProcess):
                member.kill()
        self.process.wait()
        psutil.wait_procs(family)


Answers = dict[str, list[Completion]]


@contextmanager
def running(folder: Path, **options: object) -> Iterator[RunningServer]:
    """A server on a free port that reads `folder`; healthy once `await_health` returns."""
    told = ServerOptions.model_validate(
        {"port": free_port(), "adapters_dir": folder, "max_loras": ADAPTERS, **options}
    )
    server = RunningServer(told, folder.parent / f"server-{told.port}.log")
    server.start()
    try:
        yield server
    finally:
        server.kill()


@contextmanager
def two_servers(folder: Path, **options: object) -> Iterator[Sequence[RunningServer]]:
    folder.mkdir()
    with ExitStack() as stack:
        started = [stack.enter_context(running(folder, **options)) for _ in range(2)]
        for server in started:
            server.await_health()
        yield started


def fleet_of(servers: Sequence[RunningServer]) -> Fleet:
    return Fleet(
        vllm_url=servers[0].url,
        replica_urls=[server.url for server in servers],
        adapters_dir=str(servers[0].options.adapters_dir),
        base_model=str(servers[0].options.base_model),
        timeout=120,
    )


def assert_answers(fleet: Fleet, model: str, known: Known, fresh: Answers, prompt: int) -> None:
    """Every replica answers as `model` what a fresh server with `known` alone answered."""
    meant = fresh[known.name][prompt]
    for replica in fleet.discover().members:
        found = replica.complete(model, smoke.PROMPTS[prompt], 16)
        assert same_logprobs(meant.logprobs, found.logprobs), (replica.url, model, known.name)


@dataclass(frozen=True)
class StackOfReplicas:
    """A registry of its own over running servers, for this process and for commands."""

    environment: Mapping[str, str]
    resources: Resources


def stack_of(home: Path, servers: Sequence[RunningServer]) -> StackOfReplicas:
    environment = {
        **stack_environment(home, servers[0].options.port),
        "VLLM_REPLICAS": ",".join(server.url for server in servers),
        "ADAPTERS_DIR": str(servers[0].options.adapters_dir),
    }
    return StackOfReplicas(environment, make_resources(read_settings(environment)))
