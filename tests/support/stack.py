"""One embedded stack in a folder of its own: its server, and what runs leave in its registry."""

import os
import socket
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from lora_assets.embedded.child import is_healthy, start_child
from lora_assets.lifecycle import GateName
from lora_assets.records.model_version import ModelVersion
from lora_assets.records.training import Adapter, TrainingMetrics
from lora_assets.records.verdict import Check, Verdict
from lora_assets.serving.vllm_plugin.adapters_folder import digest_folder
from lora_assets.settings import EMBEDDED_BASE_NAME
from lora_assets.stack_resources import Resources

START_SECONDS = 120


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def stack_environment(home: Path, port: int) -> Mapping[str, str]:
    return {
        "LORA_ASSETS_HOME": str(home),
        "VLLM_URL": f"http://127.0.0.1:{port}",
        "JUDGE_URL": f"http://127.0.0.1:{port}/judge",
    }


@contextmanager
def serving(environment: Mapping[str, str]) -> Iterator[None]:
    """The embedded server as a process, from when it is healthy."""
    command = [sys.executable, "-m", "lora_assets.cli.main", "serve"]
    server = start_child(command, {**os.environ, **environment})
    try:
        assert is_healthy(server, environment["VLLM_URL"], START_SECONDS), "it did not start"
        yield
    finally:
        server.terminate()
        server.wait(30)


def trained(resources: Resources, folder: Path, data_version: str) -> Adapter:
    """What the adapter asset leaves of a training run that ended with this folder."""
    with resources.tracking.run("training", "run", folder.name, {}) as run:
        run.folder(folder, "adapter")
    return Adapter(
        digest=digest_folder(folder),
        data_version=data_version,
        data_digest="e" * 64,
        base_model=EMBEDDED_BASE_NAME,
        lora_config="standard",
        mlflow_run_id=run.run_id,
        metrics=TrainingMetrics(
            final_eval_loss=0.1,
            final_perplexity=1.1,
            tokens_per_second=1.0,
            steps=1,
            best_step=1,
            rows_left_out={},
            curve=(),
        ),
    )


def passed_verdict(gate: GateName, version: ModelVersion, live: ModelVersion | None) -> Verdict:
    return Verdict(
        gate=gate,
        digest=version.digest,
        compared_with=live.digest if live and gate in ("eval_gate", "perf_gate") else None,
        data_version=version.data_version,
        data_digest=version.data_digest,
        judge=None,
        thresholds={},
        checks=(Check(name="number", measured=1.0, comparison=">=", limit=1.0),),
        faults=(),
        evidence_run_id=None,
        decided_at="2026-01-01T00:00:00+00:00",
    )
