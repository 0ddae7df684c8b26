"""The images, run as Kubernetes runs them: not as root, on a read-only root file system."""

import os
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from lora_assets.environment import BASE_MODEL, EMBEDDED_BASE_NAME
from tests.cluster import parts
from tests.conftest import free_port

BUCKET = "my-vllm-data"
USER = 1000
PACKAGE = "/opt/lora-assets/lib/python3.11/site-packages/lora_assets"
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

    def run(
        self, *arguments: str, **options: Mapping[str, str]
    ) -> subprocess.CompletedProcess[str]:
        command = self.command(*arguments, **options)
        return subprocess.run(command, capture_output=True, text=True, check=False)

    @contextmanager
    def running(
        self, *arguments: str, **options: Mapping[str, str]
    ) -> Iterator[subprocess.Popen[bytes]]:
        """A container that runs for as long as the block."""
        with subprocess.Popen(self.command(*arguments, **options)) as container:
            try:
                yield container
            finally:
                container.terminate()


@pytest.fixture(scope="session")
def deployment() -> Image:
    return Image(f"vllm-deployment-tools:{os.environ['VERSION']}")


@pytest.fixture(scope="session")
def training() -> Image:
    return Image(f"vllm-training-tools:{os.environ['VERSION']}")


@dataclass(frozen=True)
class Neighbours:
    """What a container finds around it; `environment` tells it where."""

    bucket: Path
    adapters: Path
    environment: Mapping[str, str]

    @property
    def options(self) -> dict[str, Mapping[str, str]]:
        return {"environment": self.environment, "mounts": {"/mnt/adapters": str(self.adapters)}}


@pytest.fixture(scope="session")
def neighbours(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Neighbours]:
    """S3, MLflow and a model server as real processes on this machine."""
    folder = tmp_path_factory.mktemp("images")
    bucket, adapters = folder / "s3" / BUCKET, folder / "adapters"
    bucket.mkdir(parents=True)
    adapters.mkdir()
    adapters.chmod(0o777)
    port = free_port()
    s3, mlflow = parts.s3_server(folder / "s3"), parts.mlflow_server(folder)
    everywhere = {
        "LORA_ASSETS_STACK": "cluster",
        "MLFLOW_TRACKING_URI": mlflow.url,
        "S3_DATA_BUCKET": f"s3://{BUCKET}",
        "AWS_ENDPOINT_URL_S3": s3.url,
        "AWS_ACCESS_KEY_ID": parts.S3_KEY,
        "AWS_SECRET_ACCESS_KEY": parts.S3_SECRET,
        "VLLM_URL": f"http://127.0.0.1:{port}",
        "BASE_MODEL_NAME": EMBEDDED_BASE_NAME,
    }
    here = {"LORA_ASSETS_HOME": str(folder), "BASE_MODEL": str(BASE_MODEL)}
    here["ADAPTERS_DIR"] = str(adapters)
    vllm = parts.model_server({**everywhere, **here}, port, folder / "vllm.log")
    with ExitStack() as stack:
        for part in (s3, mlflow, vllm):
            stack.callback(part.kill)
            part.start()
            part.await_ready()
        inside = {**everywhere, "BASE_MODEL": f"{PACKAGE}/base_model"}
        yield Neighbours(bucket, adapters, inside)
