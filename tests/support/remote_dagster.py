"""A real Dagster on the embedded stack."""

import shutil
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

import lora_assets.local
from lora_assets.embedded.data_set.versions import build
from lora_assets.records.dataset import SPLITS
from lora_assets.remote.log import RunEvent
from lora_assets.remote.webserver import DagsterWebserver, Run
from lora_assets.settings import read_settings
from lora_assets.stack_resources import Resources, make_resources
from tests.support.dagster_services import Dagster, serving_dagster, until
from tests.support.policies import ANY_ANSWER, ANY_SPEED, ANY_TRAINING, write_policy

SECRET = "the-api-key-of-the-fleet"


@dataclass(frozen=True)
class RemoteDagster(Dagster):
    """What the tests need of it; `home` holds all state of the stack that it runs on."""

    home: Path
    environment: Mapping[str, str]

    @property
    def resources(self) -> Resources:
        return make_resources(read_settings(self.environment))

    @property
    def webserver(self) -> DagsterWebserver:
        return DagsterWebserver(self.url, self.url)

    def runs(self, request: str) -> list[Run]:
        return list(self.webserver.runs({"lora_assets/request": request}))

    def events(self, run_id: str, kind: str) -> list[RunEvent]:
        events = self.webserver.events(run_id, None).events
        return [event for event in events if event.kind == kind]

    def observed(self, asset: str) -> dict[str, str]:
        """Return the newest observation's text of each partition of an asset."""
        seen = "... on Asset { assetObservations { partition description timestamp } }"
        key = f'assetKey: {{path: ["{asset}"]}}'
        answer = self.ask(f"{{ assetOrError({key}) {{ __typename {seen} }} }}")
        observations = answer["assetOrError"]["assetObservations"]
        oldest_first = sorted(observations, key=lambda each: float(each["timestamp"]))
        return {each["partition"]: each["description"] for each in oldest_first}

    def ask(self, document: str) -> Any:
        reply = httpx.post(f"{self.url}/graphql", json={"query": document}, timeout=60)
        return reply.json()["data"]

    @contextmanager
    def nothing_starts(self) -> Iterator[None]:
        """The daemon stands still: what is launched stays in the queue."""
        until(self._stops_without_a_lock)
        try:
            yield
        finally:
            psutil.Process(self.daemon.pid).resume()

    def _stops_without_a_lock(self) -> bool:
        """Whether the daemon stopped between two writes; in one, all others would wait for it."""
        process = psutil.Process(self.daemon.pid)
        process.suspend()
        until(lambda: process.status() == psutil.STATUS_STOPPED)
        free = False
        try:
            free = not any(is_locked(database) for database in self.home.rglob("*.db"))
        finally:
            if not free:
                process.resume()
        return free


def is_locked(database: Path) -> bool:
    with closing(sqlite3.connect(database, timeout=0, isolation_level=None)) as connection:
        try:
            connection.execute("BEGIN EXCLUSIVE")
        except sqlite3.OperationalError as error:
            # The second one: the lock under which a write-ahead log is opened.
            if error.sqlite_errorcode in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_PROTOCOL):
                return True
            raise
        connection.execute("ROLLBACK")
    return False


def small_data(bucket: Path) -> None:
    """Data version 1 with four rows of each kind in a split."""
    build("1", ["s3"], bucket, spoiled=False)
    for split in SPLITS:
        path = bucket / "data" / "processed" / "1" / f"{split}.jsonl"
        rows = path.read_text().splitlines(keepends=True)
        negative = [row for row in rows if '"question_type":"negative"' in row]
        other = [row for row in rows if row not in negative]
        path.write_text("".join(negative[:4] + other[:4]))


@pytest.fixture(scope="package")
def dagster(
    tmp_path_factory: pytest.TempPathFactory, served: Mapping[str, str], empty_mlflow: Path
) -> Iterator[RemoteDagster]:
    home = tmp_path_factory.mktemp("remote")
    dagster_home = home / "dagster"
    dagster_home.mkdir()
    shutil.copy(Path(lora_assets.local.__path__[0]) / "dagster.yaml", dagster_home)
    shutil.copy(empty_mlflow, home / "mlflow.db")
    small_data(home / "bucket")
    environment = {
        **served,
        "ADAPTERS_DIR": str(Path(served["LORA_ASSETS_HOME"]) / "adapters"),
        "LORA_ASSETS_HOME": str(home),
        "DAGSTER_HOME": str(dagster_home),
        "VLLM_API_KEY": SECRET,
        "OMP_NUM_THREADS": "1",
        **write_policy(home, ANY_TRAINING, ANY_ANSWER, ANY_SPEED),
    }
    broken = home / "broken.py"
    broken.write_text('raise ValueError("this code location is broken")\n')
    with serving_dagster(dagster_home, environment, other_locations=[broken]) as services:
        yield RemoteDagster(**vars(services), home=home, environment=environment)
