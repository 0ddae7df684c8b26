"""Webserver, daemon, code server and embedded server as processes that can be killed."""

import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import dagster as dg
import httpx
import psutil
from dagster._core.definitions.run_request import InstigatorType
from dagster._core.execution.backfill import BULK_ACTION_TERMINAL_STATUSES
from dagster._core.scheduler.instigation import SensorInstigatorData

from lora_assets.automation.next_run import CAUSE_TAG, MAX_ATTEMPTS, next_run
from lora_assets.lifecycle import STAGES
from lora_assets.local.instance import open_instance
from lora_assets.records.run_tags import WHY
from lora_assets.sensors.history import read_progress, unfinished_runs
from lora_assets.settings import read_settings
from lora_assets.stack_resources import make_resources
from tests.support.dagster_services import PROGRAMS, Part
from tests.support.doubles.webhook_receiver import WebhookReceiver
from tests.support.stack import free_port, stack_environment

LOCATION = "lora_assets"
SENSOR = "new_data_versions"
START_SECONDS = 900.0
PATIENCE_SECONDS = 60.0

START_SENSOR = "mutation($s: SensorSelector!) { startSensor(sensorSelector: $s) { __typename } }"
LAUNCH_BACKFILL = (
    "mutation($b: LaunchBackfillParams!) { launchPartitionBackfill(backfillParams: $b) "
    "{ ... on LaunchBackfillSuccess { backfillId } } }"
)


class Running:
    """The whole stack under `home`, its sensor switched on, each process by name."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.webhook = WebhookReceiver()
        web, code, server = free_port(), free_port(), free_port()
        self.dagster_url = f"http://127.0.0.1:{web}"
        own = {
            **stack_environment(self.home, server),
            "LORA_ASSETS_PROMOTION": "automatic",
            "DAGSTER_HOME": str(self.home / "dagster"),
            "DAGSTER_URL": self.dagster_url,
            "LORA_ASSETS_WEBHOOK": self.webhook.url,
        }
        self.settings = read_settings(own)
        self.resources = make_resources(self.settings)
        self.instance = open_instance(self.settings.dagster_home, managed=True)
        self.resources.registry.aliases()
        workspace = self.home / "workspace.yaml"
        workspace.write_text(
            f"load_from:\n  - grpc_server:\n      host: 127.0.0.1\n      port: {code}\n"
            f"      location_name: {LOCATION}\n"
        )
        module = ("--module-name", "lora_assets.definitions", "--location-name", LOCATION)
        at = ("--host", "127.0.0.1", "--port")

        def part(name: str, port: int, health: str | None, program: str, *words: str) -> Part:
            command = [PROGRAMS / program, *words]
            return Part(name, port, command, home / f"{name}.log", health, own)

        api, ui = ("api", "grpc", *at, str(code), *module), ("-w", str(workspace), *at, str(web))
        parts = (
            part("server", server, "/health", "lora-assets", "serve"),
            part("code", code, None, "dagster", *api),
            part("webserver", web, "/server_info", "dagster-webserver", *ui),
            part("daemon", 0, None, "dagster-daemon", "run", "-w", str(workspace)),
        )
        # In the order in which they need each other.
        self.parts = {each.name: each for each in parts}

    def start_all(self) -> None:
        """Start everything, and switch the sensor on."""
        for part in self.parts.values():
            part.start()
        self.switch_on(SENSOR)
        self.wait_for(self.has_ticked, START_SECONDS)

    def ask(self, document: str, **variables: Any) -> Any:
        """What the webserver answers to a page of the UI."""
        body = {"query": document, "variables": variables}
        reply = httpx.post(f"{self.dagster_url}/graphql", json=body, timeout=PATIENCE_SECONDS)
        return reply.json()["data"]

    def switch_on(self, sensor: str) -> None:
        """What a person does in the UI: through the webserver's GraphQL."""
        repository = {"repositoryLocationName": LOCATION, "repositoryName": "__repository__"}

        def switched() -> bool:
            try:
                reply = self.ask(START_SENSOR, s={**repository, "sensorName": sensor})
            except httpx.TransportError:
                return False
            return bool(reply["startSensor"]["__typename"] == "Sensor")

        self.wait_for(switched, START_SECONDS)

    def backfill(self, data_versions: Sequence[str], why: str, seconds: float) -> None:
        """Select these partitions of the whole graph, launch, and wait for the last of them."""
        given = {
            "assetSelection": [{"path": [asset]} for asset in STAGES],
            "partitionNames": data_versions,
            "tags": [{"key": WHY, "value": why}],
        }
        backfill_id = self.ask(LAUNCH_BACKFILL, b=given)["launchPartitionBackfill"]["backfillId"]

        def ended() -> bool:
            found = self.instance.get_backfill(backfill_id)
            return found is not None and found.status in BULK_ACTION_TERMINAL_STATUSES

        self.wait_for(ended, seconds)

    def has_ticked(self) -> bool:
        """Whether the sensor has noted what was there: what comes now is new."""
        states = self.instance.all_instigator_state(instigator_type=InstigatorType.SENSOR)
        data = [s.instigator_data for s in states if s.instigator_name == SENSOR]
        return any(isinstance(d, SensorInstigatorData) and d.cursor is not None for d in data)

    def is_settled(self) -> bool:
        """Whether no data version needs anything, or what it needs was given up."""
        if unfinished_runs(self.instance):
            return False
        live = self.resources.registry.aliases().get("live")
        return all(
            next_run(each, live.data_version if live else None, automatic=True) is None
            or self.gave_up(each.data_version)
            for each in read_progress(self.instance, self.resources.data_bucket.versions())
        )

    def gave_up(self, data_version: str) -> bool:
        """Whether the runs of one cause came to their bound."""
        runs = self.instance.get_runs(dg.RunsFilter(tags={"dagster/partition": data_version}))
        causes = Counter(run.tags[CAUSE_TAG] for run in runs if CAUSE_TAG in run.tags)
        return any(launched >= MAX_ATTEMPTS for launched in causes.values())

    def workers(self) -> list[psutil.Process]:
        """The run workers: the code server's children that run Python of their own."""
        code = psutil.Process(self.parts["code"].pid)
        return [child for child in code.children() if _is_worker(child)]

    def kill(self, name: str) -> bool:
        """kill -9 of a process, or of a run worker; False where none is there."""
        if name == "worker":
            workers = self.workers()
            for worker in workers[:1]:
                worker.kill()
            return bool(workers)
        return self.parts[name].kill()

    def wait_for(self, condition: Callable[[], bool], seconds: float) -> None:
        """Until `condition` holds; fails after `seconds`."""
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, f"not within {seconds:.0f} s: {self.state()}"
            time.sleep(0.5)

    def runs(self) -> Sequence[dg.RunRecord]:
        """Every run there ever was, oldest first."""
        return list(reversed(self.instance.get_run_records()))

    def state(self) -> str:
        """What a failed wait shows."""
        runs = [record.dagster_run for record in self.runs()]
        return "; ".join(f"{run.tags.get('dagster/run_key')} {run.status.value}" for run in runs)

    def stop(self) -> None:
        """End everything."""
        for part in self.parts.values():
            part.kill()
        self.webhook.stop()
        self.instance.dispose()


def _is_worker(process: psutil.Process) -> bool:
    """Whether it is a run worker; one that has just ended is none."""
    try:
        return "spawn_main" in " ".join(process.cmdline())
    except psutil.NoSuchProcess:
        return False
