"""Preflight: can this server take this adapter? Decided before a byte is copied."""

from collections.abc import Mapping
from pathlib import Path

from lora_assets.records.served import AdapterShape, ServerLimits

MIN_LORAS = 3
"""Adapters that a server must be able to mix: live, previous and a candidate beside them."""

RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""What vLLM's --max-lora-rank can be (0.32)."""


def obstacles(
    adapter: AdapterShape,
    server: ServerLimits,
    max_lora_rank: int,
    base_modules: Mapping[str, tuple[int, int]] | None,
    base_is_proved: bool = False,
) -> tuple[str, ...]:
    """Return why the adapter can't be served there, each with what to change; empty when it can.

    `base_modules` are the base model's linear modules by path, (out, in); None where its
    configuration can't be read from here, which leaves that check to the server itself. A base
    that is proved to be the trained one may have any name; a folder goes by its own, too.
    """
    found: list[str] = []
    folders = (Path(name).name for name in server.base_names if name.startswith("/"))
    if not base_is_proved and adapter.base_model not in (*server.base_names, *folders):
        found.append(
            f"the adapter was trained on {adapter.base_model}, the server has "
            f"{server.base_names[0]}: serve that base model"
        )
    if not server.runtime_loading:
        found.append(
            "the server can't load adapters while it runs: start it with "
            "VLLM_ALLOW_RUNTIME_LORA_UPDATING=True"
        )
    if server.max_loras is None:
        found.append("the server has no LoRA support: start it with --enable-lora")
    elif server.max_loras < MIN_LORAS:
        found.append(
            f"the server mixes {server.max_loras} adapter(s), live, previous and candidate are "
            f"{MIN_LORAS}: start it with --max-loras {MIN_LORAS}"
        )
    if adapter.rank > max_lora_rank:
        found.append(
            f"rank {adapter.rank} is above the server's {max_lora_rank}: {_higher(adapter.rank)}"
        )
    if base_modules is not None:
        for name, shape in adapter.modules.items():
            if name not in base_modules:
                found.append(f"the base model has no module {name}: train on that base model")
            elif base_modules[name] != shape:
                found.append(
                    f"{name} is {base_modules[name]} in the base model and {shape} in the "
                    "adapter: train on that base model"
                )
    return tuple(found)


def _higher(rank: int) -> str:
    fitting = next((each for each in RANKS if each >= rank), None)
    if fitting is None:
        return "vLLM takes no such rank, train a smaller one"
    return f"start it with --max-lora-rank {fitting} and set VLLM_MAX_LORA_RANK={fitting}"
