"""Servers that the conformance tests hold against the same promises.

VLLM_PYTHON chooses real vLLM (`make test-vllm`); without it the embedded server is tested, so
that it can't drift from the real one.
"""

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import psutil

from lora_assets.embedded.server.options import ServerOptions
from lora_assets.embedded.server.process import serve
from lora_assets.embedded.vllm_server import vllm_command
from lora_assets.gates import smoke
from lora_assets.records.model_version import ModelVersion
from lora_assets.records.served import LIVE_SLOT
from lora_assets.serving.replica import Completion
from lora_assets.serving.replicas import Replicas, same_logprobs
from lora_assets.serving.vllm_plugin.guard import ADMIN_KEY
from lora_assets.settings import read_settings
from lora_assets.stack_resources import Resources, make_resources
from tests.support.dagster_services import Part
from tests.support.promotions import promote, stage
from tests.support.stack import free_port, stack_environment

ADAPTERS = 6


@dataclass(frozen=True)
class Known:
    """An adapter, the name that belongs to its bytes, and where they are."""

    name: str
    digest: str
    source: Path


@dataclass
class RunningServer(Part):
    """A model server, which can be killed and started again."""

    options: ServerOptions = field(kw_only=True)

    def kill(self) -> bool:
        if self.runs:
            kill_family(self.pid)
        return super().kill()


def kill_family(pid: int) -> None:
    """Kill a process and its children: vLLM's engine and workers outlive its API server."""
    parent = psutil.Process(pid)
    family = parent.children(recursive=True)
    for member in (parent, *family):
        with suppress(psutil.NoSuchProcess):
            member.kill()
    psutil.wait_procs(family)


Answers = dict[str, list[Completion]]


@contextmanager
def running(folder: Path, **options: object) -> Iterator[RunningServer]:
    """A server on a free port that reads `folder`; healthy once `await_ready` returns."""
    defaults = {"port": free_port(), "adapters_dir": folder, "max_loras": ADAPTERS}
    given = ServerOptions.model_validate({**defaults, **options})
    python, log = os.environ.get("VLLM_PYTHON"), folder.parent / f"server-{given.port}.log"
    program = [sys.executable, "-m", serve.__module__, given.model_dump_json()]
    command, own = vllm_command(python, given) if python else (program, {})
    # A key of this process's environment is none of the server's.
    environment = {"VLLM_API_KEY": "", ADMIN_KEY: "", **own}
    server = RunningServer("vLLM", given.port, command, log, "/health", environment, options=given)
    server.launch()
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
            server.await_ready()
        yield started


@dataclass(frozen=True)
class Stack:
    """A registry of its own over running servers, for this process and for commands.

    Data version n is that of the n-th adapter; after the last one comes the first again.
    """

    home: Path
    servers: Sequence[RunningServer]
    adapters: Sequence[Known]
    fresh: Answers

    @property
    def environment(self) -> Mapping[str, str]:
        options = self.servers[0].options
        return {
            **stack_environment(self.home, options.port),
            "VLLM_REPLICAS": ",".join(server.url for server in self.servers),
            "ADAPTERS_DIR": str(options.adapters_dir),
        }

    @cached_property
    def resources(self) -> Resources:
        return make_resources(read_settings(self.environment))

    def on(self, *servers: RunningServer) -> "Stack":
        """Return the same stack over other servers."""
        return replace(self, servers=servers)

    def replicas(self) -> Replicas:
        return self.resources.fleet.discover()

    def adapter(self, number: int) -> Known:
        return self.adapters[(number - 1) % len(self.adapters)]

    def stage(self, number: int) -> ModelVersion:
        return stage(self.resources, self.adapter(number).source, str(number))

    def promote(self, number: int) -> ModelVersion:
        return promote(self.resources, str(number))

    def assert_answers(self, known: Known, prompt: int, model: str = LIVE_SLOT) -> None:
        """Every replica answers as `model` what a fresh server with `known` alone answered."""
        meant = self.fresh[known.name][prompt]
        for replica in self.replicas().members:
            answer = replica.complete(model, smoke.PROMPTS[prompt], 16)
            assert same_logprobs(meant.logprobs, answer.logprobs), (replica.url, model, known.name)
