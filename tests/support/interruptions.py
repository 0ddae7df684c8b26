"""A promotion during which something happens, at a point of its way.

As a program, `python -m tests.support.interruptions POINT` is a `lora-assets promote` whose
process is killed there.
"""

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

from lora_assets.cli.main import main
from lora_assets.resources.registry import Registry
from lora_assets.serving.adapter_files import WEIGHTS
from lora_assets.serving.replicas import Replicas
from lora_assets.serving.vllm_plugin import adapters_folder

POINTS = ("half of the bytes copied", "loaded", "in the slot", "one alias moved")
LIVE_MOVED = "live moved"
Patch = Callable[[Any, str, Any], None]


def interrupt(point: str, act: Callable[[], object], patch: Patch = setattr) -> None:
    """Have `act` happen once, at `point` of the next promotion; `patch` sets an attribute."""
    if point == POINTS[0]:
        patch(adapters_folder, "_write", _copying(act))
        return
    owner: Any = Replicas if point in POINTS[1:3] else Registry
    method = {POINTS[1]: "load", POINTS[2]: "renew_slot"}.get(point, "set_alias")
    original, left = getattr(owner, method), [act]

    def then_act(*arguments: Any, **named: Any) -> None:
        original(*arguments, **named)
        if left and (point != LIVE_MOVED or "live" in arguments):
            left.pop()()

    patch(owner, method, then_act)


def _copying(act: Callable[[], object]) -> Callable[[IO[bytes], Path, int], None]:
    def write(source: IO[bytes], to: Path, size: int) -> None:
        content = source.read()
        with to.open("wb") as file:
            file.write(content[: len(content) // 2])
            file.flush()
            if to.name == WEIGHTS:
                act()
            file.write(content[len(content) // 2 :])

    return write


if __name__ == "__main__":
    interrupt(sys.argv[1], lambda: os.kill(os.getpid(), signal.SIGKILL))
    sys.argv[1:] = ["promote"]
    main()
