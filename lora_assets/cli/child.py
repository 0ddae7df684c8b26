"""A child process that ends with its parent, also when the parent is killed."""

import ctypes
import signal
import subprocess
from collections.abc import Mapping, Sequence
from typing import IO

PR_SET_PDEATHSIG = 1
"""Of Linux's <sys/prctl.h>."""


def start_child(
    command: Sequence[str], environment: Mapping[str, str], output: IO[bytes] | None = None
) -> subprocess.Popen[bytes]:
    """Start `command`; both of its outputs go to `output`, or where the parent's go."""
    return subprocess.Popen(
        command, env=environment, stdout=output, stderr=output, preexec_fn=_end_with_parent
    )


def _end_with_parent() -> None:
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
