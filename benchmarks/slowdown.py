"""A planted slowdown: what takes a share more of the CPU."""

import hashlib
import time
from collections.abc import Callable
from typing import TypeVar

Result = TypeVar("Result")

_WORK = bytes(100_000)


def slowed(step: Callable[[], Result], share: float) -> Result:
    """Return what the step does, after so much more of its thread's CPU time.

    A pause would not do: on a busy machine it is made up for.
    """
    began = time.thread_time()
    result = step()
    now = time.thread_time()
    until = now + share * (now - began)
    while time.thread_time() < until:
        # Without the interpreter's lock, as the step itself mostly is.
        hashlib.sha256(_WORK)
    return result
