"""The images and what is around them, each container run as Kubernetes runs it."""

import os
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from subprocess import CompletedProcess, Popen

from tests.support.dagster_services import until

USER = 1000
AS_KUBERNETES = (
    *("--read-only", "--tmpfs", "/tmp"),
    *("--cap-drop", "all", "--security-opt", "no-new-privileges", "--network", "host"),
    # More than a process on a bare machine may raise, unless they are named.
    *("--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024"),
)


def _run() -> list[str]:
    """The engine's command for the images that 'make images' built."""
    if os.environ["ENGINE"] == "docker":
        return ["docker", "run", "--rm"]
    storage = Path(os.environ["STORAGE"])
    driver = "overlay" if (storage / "overlay").is_dir() else "vfs"
    podman = ["podman", "--storage-driver", driver, "--root", str(storage)]
    podman += ["--runroot", str(storage / "run"), "--runtime", "runc"]
    return [*podman, "--cgroup-manager", "cgroupfs", "run", "--rm", "--read-only-tmpfs=false"]


@dataclass(frozen=True)
class Image:
    """An image that was built here; `run` starts a container of it and awaits its end."""

    name: str

    def command(self, *arguments: str, **options: Mapping[str, str]) -> list[str]:
        """The engine's command line; `environment` by name, `mounts` by their path inside."""
        variables = [f"--env={k}={v}" for k, v in options.get("environment", {}).items()]
        mounts = [f"--volume={v}:{k}" for k, v in options.get("mounts", {}).items()]
        return [*_run(), *AS_KUBERNETES, *variables, *mounts, self.name, *arguments]

    def run(self, *arguments: str, **options: Mapping[str, str]) -> CompletedProcess[str]:
        command = self.command(*arguments, **options)
        return subprocess.run(command, capture_output=True, text=True, check=False)

    def output(self, *arguments: str, **options: Mapping[str, str]) -> str:
        """Return what a container printed that ended well."""
        ended = self.run(*arguments, **options)
        assert ended.returncode == 0, ended.stderr
        return ended.stdout

    @contextmanager
    def serving(
        self, words: Sequence[str], ready: Callable[[], object], **options: Mapping[str, str]
    ) -> Iterator[None]:
        """Run a container for as long as the block, from when it is ready."""
        with Popen(self.command(*words, **options)) as container:
            try:
                until(lambda: container.poll() is not None or ready(), words[0])
                assert container.poll() is None, f"{words[0]} ended before it was ready"
                yield
            finally:
                container.terminate()
