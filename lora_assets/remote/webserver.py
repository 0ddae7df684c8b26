"""Dagster's webserver: launches runs, and tells how they go."""

import json
import time
from collections.abc import Mapping, Sequence
from typing import Any

import httpx

from lora_assets.assets.partitions import data_versions
from lora_assets.errors import ConnectionLost, LoraAssetsError
from lora_assets.lifecycle import Step
from lora_assets.records import Record
from lora_assets.remote import queries as queries
from lora_assets.remote.log import RunEvent, event

PAUSES = (0.5, 1.0, 2.0, 4.0)
"""Seconds between the attempts at a request; who is told of the loss may try again later."""

PARTITION_TAG = "dagster/partition"
_ENDED = {"SUCCESS", "FAILURE", "CANCELED"}


class Location(Record):
    """The code location that holds the graph."""

    repositoryLocationName: str
    repositoryName: str


class Run(Record):
    """A run as it is now; `created` in seconds since 1970."""

    run_id: str
    status: str
    created: float
    parent: str | None
    tags: Mapping[str, str]

    @property
    def ended(self) -> bool:
        """Whether it is over, and Dagster will not run it again by itself."""
        return self.status in _ENDED and self.tags.get("dagster/will_retry") != "true"


class Events(Record):
    """A part of a run's log, and where the next one begins."""

    events: tuple[RunEvent, ...]
    cursor: str
    more: bool


class DagsterWebserver:
    """The webserver at `url`.

    Every method raises ConnectionLost when there is no answer, after some attempts, and
    LoraAssetsError when the answer is a refusal.
    """

    def __init__(self, url: str, ui_url: str) -> None:
        self.url = url.rstrip("/")
        self._ui_url = ui_url.rstrip("/")
        self._client = httpx.Client(timeout=httpx.Timeout(30, connect=5))

    def link(self, run_id: str) -> str:
        """The run's page."""
        return f"{self._ui_url}/runs/{run_id}"

    def locate(self, job: str) -> Location:
        """The one code location that has `job`; one that failed to load is named."""
        workspace = self._answer(queries.LOCATIONS, "workspaceOrError")
        found: list[Location] = []
        broken: list[str] = []
        for entry in workspace["locationEntries"]:
            loaded = entry["locationOrLoadError"] or {}
            if loaded.get("__typename") == "PythonError":
                chain = [loaded, *(link["error"] for link in loaded["errorChain"])]
                broken.append(f"{entry['name']}: {_line(chain[-1]['message'])}")
            found += [
                Location(repositoryLocationName=entry["name"], repositoryName=repository["name"])
                for repository in loaded.get("repositories", ())
                if {"lifecycle", job} <= {each["name"] for each in repository["jobs"]}
            ]
        if len(found) == 1:
            return found[0]
        if found:
            names = ", ".join(location.repositoryLocationName for location in found)
            raise LoraAssetsError(
                f"Dagster at {self.url} has job {job} in several code locations ({names})",
                "Leave lora_assets.definitions in one of them.",
            )
        if broken:
            raise LoraAssetsError(
                f"A code location of Dagster at {self.url} failed to load ({'; '.join(broken)})",
                "Mend it and reload it in Dagster.",
            )
        raise LoraAssetsError(
            f"No code location of Dagster at {self.url} has job {job}",
            "Add lora_assets.definitions to its workspace.",
        )

    def configured(self, location: Location) -> Mapping[str, Mapping[str, Any]]:
        """How each resource is configured there; a variable of the environment by its name."""
        selector = location.model_dump()
        key = "allTopLevelResourceDetailsOrError"
        details = self._answer(queries.RESOURCES, key, repository=selector)
        return {
            resource["name"]: {
                value["key"]: {"env": value["value"]}
                if value["type"] == "ENV_VAR"
                else json.loads(value["value"])
                for value in resource["configuredValues"]
            }
            for resource in details["results"]
        }

    def add_partition(self, location: Location, data_version: str) -> None:
        """Make a data version known; fine when it is."""
        self._answer(
            queries.ADD_PARTITION,
            "addDynamicPartition",
            fine=("DuplicateDynamicPartitionError",),
            repository=location.model_dump(),
            set=str(data_versions.name),
            key=data_version,
        )

    def launch(
        self,
        location: Location,
        job: str,
        step: Step | None,
        run_config: Mapping[str, Any],
        tags: Mapping[str, str],
    ) -> None:
        """Launch the step's part of a job, or all of it. Asked once: it is not idempotent."""
        selector: dict[str, Any] = {**location.model_dump(), "jobName": job}
        if step is not None:
            selector["assetSelection"] = [{"path": [asset]} for asset in step.assets]
            selector["assetCheckSelection"] = [
                {"assetKey": {"path": [asset]}, "name": name}
                for asset, _, name in (check.partition(":") for check in step.checks)
            ]
        params = {
            "selector": selector,
            # Not as text: Dagster reads text as YAML 1.1, in which 1e-05 is no number.
            "runConfigData": run_config,
            "executionMetadata": {"tags": _tags(tags)},
        }
        self._answer(queries.LAUNCH, "launchRun", pauses=(), params=params)

    def runs(self, tags: Mapping[str, str]) -> Sequence[Run]:
        """The runs that have all of these tags."""
        found = self._answer(queries.RUNS, "runsOrError", tags=_tags(tags))
        return [
            Run(
                run_id=run["runId"],
                status=run["status"],
                created=run["creationTime"],
                parent=run["parentRunId"],
                tags={tag["key"]: tag["value"] for tag in run["tags"]},
            )
            for run in found["results"]
        ]

    def events(self, run_id: str, after: str | None) -> Events:
        """What a run has logged since `after`; nothing for a run that is gone."""
        fine = ("RunNotFoundError",)
        log = self._answer(queries.EVENTS, "logsForRun", fine=fine, run=run_id, after=after)
        return Events(
            events=tuple(event(raw) for raw in log.get("events", ())),
            cursor=log.get("cursor", after or ""),
            more=log.get("hasMore", False),
        )

    def terminate(self, run_id: str, at_once: bool = False) -> None:
        """Ask a run to end, or mark it as ended; fine when it has ended or is gone."""
        self._answer(
            queries.TERMINATE,
            "terminateRun",
            fine=("TerminateRunFailure", "RunNotFoundError"),
            run=run_id,
            policy="MARK_AS_CANCELED_IMMEDIATELY" if at_once else "SAFE_TERMINATE",
        )

    def _answer(
        self,
        document: str,
        field: str,
        *,
        fine: Sequence[str] = (),
        pauses: Sequence[float] = PAUSES,
        **variables: Any,
    ) -> dict[str, Any]:
        reply = self._post({"query": document, "variables": variables}, pauses)
        try:
            answer = reply.json()
            errors = [error["message"] for error in answer.get("errors", ())]
            data = answer["data"][field] if not errors else None
        except (ValueError, KeyError, TypeError, AttributeError):
            raise LoraAssetsError(
                f"{self.url} answers {reply.status_code}, but not as Dagster does",
                "Correct DAGSTER_URL.",
            ) from None
        if data is not None and data["__typename"] not in fine:
            if data["__typename"] == "RunConfigValidationInvalid":
                errors = [error["message"] for error in data["errors"]]
            elif "message" in data:
                errors = [data["message"]]
        if any("OperationalError" in error.partition(":")[0] for error in errors):
            raise ConnectionLost(
                f"Dagster at {self.url} can't use its database ({_line(errors[0])})",
                "See that the database runs; then run this again.",
            )
        if errors or data is None:
            raise LoraAssetsError(
                f"Dagster at {self.url} refused {field} ({'; '.join(map(_line, errors))})",
                "See that it runs the same version of lora-assets as this command.",
            )
        found: dict[str, Any] = data
        return found

    def _post(self, body: Mapping[str, Any], pauses: Sequence[float]) -> httpx.Response:
        for pause in (*pauses, None):
            try:
                reply = self._client.post(f"{self.url}/graphql", json=body)
                lost = f"it answered {reply.status_code}"
            except (httpx.UnsupportedProtocol, httpx.InvalidURL) as error:
                raise LoraAssetsError(
                    f"{self.url!r} is no URL of Dagster ({error})", "Correct DAGSTER_URL."
                ) from None
            except httpx.TransportError as error:
                reply, lost = None, str(error) or type(error).__name__
            if reply is not None and reply.status_code < 500:
                return reply
            if pause is not None:
                time.sleep(pause)
        # An error of Dagster's own comes with 500 too, but then Dagster says so itself.
        if reply is not None and reply.headers.get("content-type") == "application/json":
            return reply
        raise ConnectionLost(
            f"The connection to Dagster at {self.url} is lost ({lost})",
            "See that its webserver runs and that DAGSTER_URL names it; then run this again.",
        )


def _tags(tags: Mapping[str, str]) -> list[Mapping[str, str]]:
    return [{"key": key, "value": value} for key, value in tags.items()]


def _line(text: str) -> str:
    """A message that may have a stack trace, as one line."""
    return " ".join(text.split())[:500]
