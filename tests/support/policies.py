"""Policies for tests in which how good an adapter is does not matter."""

from collections.abc import Mapping
from pathlib import Path

from lora_assets.resources.policy import PolicyFile

ANY_TRAINING = {"max-eval-loss": 100, "max-perplexity": 1e9}
ANY_ANSWER = {"min-a-rate": 0, "max-c-rate": 1, "min-refusal-rate": 0}
ANY_SPEED = {
    **{"max-p95-latency": 600, "max-p95-ttft": 600, "min-throughput": 0},
    **{"latency-regression-factor": 100, "throughput-regression-factor": 0},
}


def options(limits: dict[str, float]) -> tuple[str, ...]:
    """Return the limits as a command's options."""
    return tuple(word for name, limit in limits.items() for word in (f"--{name}", f"{limit:g}"))


def write_policy(folder: Path, *limits: Mapping[str, object]) -> dict[str, str]:
    """Write a policy with these keys, and return the variable that names it."""
    path = folder / "policy.yaml"
    lines = [f"{name}: {limit}\n" for each in limits for name, limit in each.items()]
    path.write_text("".join(lines))
    return {"LORA_ASSETS_POLICY": str(path)}


def policy_file(folder: Path, *limits: Mapping[str, object]) -> PolicyFile:
    return PolicyFile(path=write_policy(folder, *limits)["LORA_ASSETS_POLICY"])
