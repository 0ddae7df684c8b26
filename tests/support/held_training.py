"""A `lora-assets train` whose training waits for a line, as a program."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from lora_assets.cli.main import main
from lora_assets.resources.trainer import Trainer
from tests.support.commands import Command

BEGUN = "the training has begun"


@contextmanager
def held_training(environment: Mapping[str, str]) -> Iterator[Command]:
    """The command on data version 1, in a process that heeds Ctrl-C wherever it was started."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.support.held_training"],
        env={**os.environ, **environment},
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    try:
        yield Command(process)
    finally:
        process.kill()
        process.communicate()


def _wait(*_: object, **__: object) -> None:
    print(BEGUN, file=sys.stderr, flush=True)
    sys.stdin.readline()


if __name__ == "__main__":
    trainer: Any = Trainer
    trainer.train = _wait
    sys.argv[1:] = ["train", "--data-version", "1"]
    main()
