"""Child processes that end with their parent, also when the parent is killed."""

import ctypes
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import IO

import httpx

PR_SET_PDEATHSIG = 1
"""Of Linux's <sys/prctl.h>."""


def start_child(
    command: Sequence[str], environment: Mapping[str, str], output: IO[bytes] | None = None
) -> subprocess.Popen[bytes]:
    """Start `command`, with both of its outputs in `output`, or where the parent's go."""
    return subprocess.Popen(
        command, env=environment, stdout=output, stderr=output, preexec_fn=_end_with_parent
    )


def is_healthy(
    child: subprocess.Popen[bytes], url: str, seconds: float, path: str = "/health"
) -> bool:
    """Wait until `path` answers well; return False if the child ends or `seconds` pass before."""
    deadline = time.monotonic() + seconds
    with httpx.Client(base_url=url, timeout=5) as client:
        while time.monotonic() < deadline and child.poll() is None:
            with suppress(httpx.TransportError):
                if client.get(path).is_success:
                    return True
            with suppress(subprocess.TimeoutExpired):
                child.wait(0.2)
    return False


def _end_with_parent() -> None:
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
