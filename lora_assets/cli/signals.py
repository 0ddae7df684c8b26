"""What Ctrl-C and SIGTERM do to a command, wherever it is."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from lora_assets.errors import Stopped
from lora_assets.stop_signals import handled_by


@contextmanager
def raising_stopped() -> Iterator[None]:
    """Raise Stopped in the block when SIGINT or SIGTERM comes, and ignore those after it.

    A SIGINT that was ignored before, as in the background of a script, is still ignored. It gets
    a handler in spite of that: Dagster gives SIGTERM the one that SIGINT has.
    """
    was_ignored = signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    stopped = False

    def stop(number: int, _: FrameType | None) -> None:
        nonlocal stopped
        if not stopped and (number != signal.SIGINT or not was_ignored):
            stopped = True
            raise Stopped(number)

    with handled_by(stop):
        yield
