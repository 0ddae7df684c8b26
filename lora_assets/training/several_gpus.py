"""One process for each GPU, as torchrun starts them; each has its share of an update's rows."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Sequence
from functools import partial
from multiprocessing.connection import Connection, wait
from typing import Any

import torch
from torch import distributed
from torch.distributed.elastic.utils.distributed import get_free_port

from lora_assets.errors import LoraAssetsError
from lora_assets.records.training import Listeners, TrainingMetrics

Job = partial[TrainingMetrics]


def train_in_processes(count: int, job: Job, told: Listeners) -> TrainingMetrics:
    """Do `job`, which is `train` but for its listeners, in `count` processes with a GPU each.

    Without GPUs they share the CPU. The updates and their losses are those of one process. The
    listeners are called here. Raise what `train` raises; LoraAssetsError for a process that ends
    by itself, such as one that the system ended for want of memory. All of them have ended on
    return.
    """
    context = multiprocessing.get_context("spawn")
    port = get_free_port()  # type: ignore[no-untyped-call]
    heard, processes = [], []
    for rank in range(count):
        here, there = context.Pipe(duplex=False)
        target = (rank, count, port, there, job)
        processes.append(context.Process(target=_train_here, args=target, daemon=True))
        heard.append(here)
    try:
        for process in processes:
            process.start()
        return _listen(heard, processes, told)
    finally:
        for process in processes:
            if process.pid is not None:
                process.kill()
                process.join()


def _listen(
    heard: Sequence[Connection], processes: Sequence[Any], told: Listeners
) -> TrainingMetrics:
    """Pass on what the processes tell; return what the first of them ends with."""
    while True:
        ready = wait([*heard, *(process.sentinel for process in processes)])
        # What a process told before it ended comes before its end.
        for connection in heard:
            while connection in ready and connection.poll():
                what, value = connection.recv()
                if what == "refused":
                    raise LoraAssetsError(*value)
                if what == "trained":
                    return TrainingMetrics.model_validate(value)
                getattr(told, what)(value)
        for rank, process in enumerate(processes):
            if process.sentinel in ready and not heard[rank].poll():
                raise LoraAssetsError(
                    f"Training process {rank + 1} of {len(processes)} ended with exit code "
                    f"{process.exitcode}",
                    "See its last lines above, then run this again; it goes on from its last "
                    "complete checkpoint.",
                )


def _end_with_parent() -> None:
    """Wait for the parent's end, which a SIGKILL doesn't tell its children; end this process."""
    if (parent := multiprocessing.parent_process()) is not None:
        parent.join()
        os._exit(1)


def _train_here(rank: int, count: int, port: int, there: Connection, job: Job) -> None:
    # A GPU's memory would stay taken, and the other processes wait for this one's gradients.
    threading.Thread(target=_end_with_parent, daemon=True).start()
    # The parent ends this process; a Ctrl-C in the terminal reaches both.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.environ |= {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(count),
        "LOCAL_WORLD_SIZE": str(count),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }
    if torch.cuda.is_available():
        torch.cuda.set_device(rank)

    def tell(what: str) -> Callable[[Any], None]:
        return lambda value: there.send((what, value)) if rank == 0 else None

    try:
        metrics = job(Listeners(*map(tell, Listeners._fields)))
    except LoraAssetsError as error:
        there.send(("refused", (error.cause, error.remedy)))
        return
    distributed.barrier()
    tell("trained")(metrics)
    # The first process's end is the end of all.
    distributed.barrier()
