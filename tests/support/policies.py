"""Policies for tests in which how good an adapter is does not matter."""

from pathlib import Path

ANY_TRAINING = {"max-eval-loss": 100, "max-perplexity": 1e9}
ANY_ANSWER = {"min-a-rate": 0, "max-c-rate": 1, "min-refusal-rate": 0}
ANY_SPEED = {
    **{"max-p95-latency": 600, "max-p95-ttft": 600, "min-throughput": 0},
    **{"latency-regression-factor": 100, "throughput-regression-factor": 0},
}


def options(limits: dict[str, float]) -> tuple[str, ...]:
    """Return the limits as a command's options."""
    return tuple(word for name, limit in limits.items() for word in (f"--{name}", f"{limit:g}"))


def write_policy(folder: Path, *limits: dict[str, float]) -> dict[str, str]:
    """Write a policy with these limits, and return the variable that names it."""
    path = folder / "policy.yaml"
    lines = [f"{name}: {limit}\n" for each in limits for name, limit in each.items()]
    path.write_text("".join(lines))
    return {"LORA_ASSETS_POLICY": str(path)}
