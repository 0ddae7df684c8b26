"""A replica with a folder of its own, as a pod has it, beside those that share one."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from lora_assets.cli.restore import restore_adapters
from lora_assets.resources.fleet import Fleet
from lora_assets.serving.replica_folder import shared_folder
from lora_assets.serving.replicas import Replicas
from lora_assets.stack_resources import Resources
from tests.support.dagster_services import is_answered
from tests.support.replicas import RunningServer, running

URL, NOT_READY = "pod-url", "pod-not-ready"


@contextmanager
def starting_pod(home: Path, resources: Resources) -> Iterator[RunningServer]:
    """A pod whose init container has ended, and whose server starts."""
    folder = home / "pod" / "adapters"
    folder.mkdir(parents=True, exist_ok=True)
    restore_adapters(resources, shared_folder(str(folder)))
    with running(folder) as server:
        (home / URL).write_text(server.url)
        try:
            yield server
        finally:
            (home / URL).unlink()


def discovering_the_pod(home: Path) -> Callable[[Fleet], Replicas]:
    """`Fleet.discover` that finds that pod too: ready once it answers, unless it is `NOT_READY`."""
    discover = Fleet.discover

    def found(fleet: Fleet) -> Replicas:
        others = discover(fleet)
        if not (home / URL).exists():
            return others
        url, folder = (home / URL).read_text(), shared_folder(str(home / "pod" / "adapters"))
        if (home / NOT_READY).exists() or not is_answered(f"{url}/health"):
            return replace(others, waiting={"vllm-3 is not ready": folder})
        return replace(others, members=(*others.members, fleet._replica(url, folder, "vllm-3")))

    return found
