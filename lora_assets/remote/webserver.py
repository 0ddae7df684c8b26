"""Dagster's webserver: launch runs, follow them, terminate them."""

import json
import time
from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any

import httpx

from lora_assets.errors import ConnectionLost, LoraAssetsError
from lora_assets.lifecycle import Step
from lora_assets.records import Record
from lora_assets.remote.log import RunEvent, event
from lora_assets.serving.bounded_client import request
from lora_assets.serving.http_client import is_unknown_host

PAUSES = (0.5, 1.0, 2.0, 4.0)
"""Seconds between the attempts at a request, before the connection counts as lost."""

DEADLINE_S = 60.0
"""For a whole reply."""
_TIMEOUT = httpx.Timeout(30, connect=5)
_ENDED = {"SUCCESS", "FAILURE", "CANCELED"}
_QUERIES = files(__package__).joinpath("queries.graphql").read_text()


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

    Every method raises ConnectionLost without an answer after some attempts, and LoraAssetsError
    for a refusal, or for a host that doesn't exist.
    """

    def __init__(self, url: str, ui_url: str) -> None:
        self.url = url.rstrip("/")
        self._ui_url = ui_url.rstrip("/")
        self._has_answered = False

    def link(self, run_id: str) -> str:
        """Return the address of the run's page."""
        return f"{self._ui_url}/runs/{run_id}"

    def locate(self, job: str) -> Location:
        """Return the one code location that has `job`."""
        where = f"Dagster at {self.url}"
        having: list[Location] = []
        broken: list[str] = []
        for entry in self._answer("workspaceOrError")["locationEntries"]:
            loaded = entry["locationOrLoadError"] or {}
            if "errorChain" in loaded:
                broken.append(f"{entry['name']}: {_load_error(loaded)}")
            having += [
                Location(repositoryLocationName=entry["name"], repositoryName=repository["name"])
                for repository in loaded.get("repositories", ())
                if {"lifecycle", job} <= {each["name"] for each in repository["jobs"]}
            ]
        if len(having) > 1:
            names = ", ".join(location.repositoryLocationName for location in having)
            cause = f"{where} has job {job} in several code locations ({names})"
            raise LoraAssetsError(cause, "Leave lora_assets.definitions in one of them.")
        if having:
            return having[0]
        if broken:
            cause = f"A code location of {where} failed to load ({'; '.join(broken)})"
            remedy = "Correct it or start its server, then reload it in Dagster."
            raise LoraAssetsError(cause, remedy)
        cause = f"No code location of {where} has job {job}"
        raise LoraAssetsError(cause, "Add lora_assets.definitions to its workspace.")

    def configured(self, location: Location) -> Mapping[str, Mapping[str, Any]]:
        """Return each resource's configuration; variables of the environment by their names."""
        details = self._answer(
            "allTopLevelResourceDetailsOrError", repository=location.model_dump()
        )
        return {
            resource["name"]: {
                value["key"]: {"env": value["value"]}
                if value["type"] == "ENV_VAR"
                else json.loads(value["value"])
                for value in resource["configuredValues"]
            }
            for resource in details["results"]
        }

    def add_partition(self, location: Location, partitions: str, key: str) -> None:
        """Add a key to a dynamic partition set, unless the set has it."""
        self._answer(
            "addDynamicPartition",
            fine=("DuplicateDynamicPartitionError",),
            repository=location.model_dump(),
            set=partitions,
            key=key,
        )

    def launch(
        self,
        location: Location,
        job: str,
        step: Step | None,
        run_config: Mapping[str, Any],
        tags: Mapping[str, str],
    ) -> None:
        """Launch the step's part of a job, or all of it; once, since it is not idempotent."""
        selector: dict[str, Any] = {**location.model_dump(), "jobName": job}
        if step is not None:
            selector["assetSelection"] = [{"path": [asset]} for asset in step.assets]
            selector["assetCheckSelection"] = [
                {"assetKey": {"path": [asset]}, "name": name}
                for asset, _, name in (check.partition(":") for check in step.checks)
            ]
        params = {
            "selector": selector,
            # Not as text: Dagster reads text as YAML 1.1, in which 1e-05 is a string.
            "runConfigData": run_config,
            "executionMetadata": {"tags": _tags(tags)},
        }
        self._answer("launchRun", pauses=(), params=params)

    def runs(self, tags: Mapping[str, str]) -> Sequence[Run]:
        """Return the runs that have all of these tags."""
        return [
            Run.model_validate(run | {"tags": {tag["key"]: tag["value"] for tag in run["tags"]}})
            for run in self._answer("runsOrError", tags=_tags(tags))["results"]
        ]

    def events(self, run_id: str, after: str | None) -> Events:
        """Return what a run has logged since `after`; nothing for a run that was deleted."""
        log = self._answer("logsForRun", fine=("RunNotFoundError",), run=run_id, after=after)
        return Events(
            events=tuple(event(raw) for raw in log.get("events", ())),
            cursor=log.get("cursor", after or ""),
            more=log.get("more", False),
        )

    def terminate(self, run_id: str, at_once: bool = False) -> None:
        """Ask a run to end, or mark it as ended, unless it has ended or was deleted."""
        self._answer(
            "terminateRun",
            fine=("TerminateRunFailure", "RunNotFoundError"),
            run=run_id,
            policy="MARK_AS_CANCELED_IMMEDIATELY" if at_once else "SAFE_TERMINATE",
        )

    def observe(self, asset: str, partitions: Sequence[str], text: str) -> None:
        """Record an observation of these partitions of an asset, outside of any run."""
        observation = {
            "eventType": "ASSET_OBSERVATION",
            "assetKey": {"path": [asset]},
            "partitionKeys": list(partitions),
            "description": text,
        }
        self._answer("reportRunlessAssetEvents", observation=observation)

    def _answer(
        self,
        operation: str,
        *,
        fine: Sequence[str] = (),
        pauses: Sequence[float] = PAUSES,
        **variables: Any,
    ) -> dict[str, Any]:
        body = {"query": _QUERIES, "operationName": operation, "variables": variables}
        reply = self._post(body, pauses)
        try:
            answer = reply.json()
            errors = [error["message"] for error in answer.get("errors", ())]
            data: dict[str, Any] | None = None if errors else answer["data"][operation]
        except (ValueError, KeyError, TypeError, AttributeError):
            raise LoraAssetsError(
                f"{self.url} answers {reply.status_code}, but not as Dagster does",
                "Correct DAGSTER_URL.",
            ) from None
        if data is not None and data["__typename"] not in fine:
            refusals = data.get("errors", [data] if "message" in data else [])
            errors = [refusal["message"] for refusal in refusals]
        if any("OperationalError" in error.partition(":")[0] for error in errors):
            raise ConnectionLost(
                f"Dagster at {self.url} can't use its database ({_line(errors[0])})",
                "See that the database runs; then run this again.",
            )
        if errors or data is None:
            raise LoraAssetsError(
                f"Dagster at {self.url} refused {operation} ({'; '.join(map(_line, errors))})",
                "See that it runs the same version of lora-assets as this command.",
            )
        return data

    def _post(self, body: Mapping[str, Any], pauses: Sequence[float]) -> httpx.Response:
        for pause in (*pauses, None):
            try:
                url = f"{self.url}/graphql"
                reply = request("POST", url, DEADLINE_S, json=body, timeout=_TIMEOUT)
                lost = f"it answered {reply.status_code}"
            except (httpx.UnsupportedProtocol, httpx.InvalidURL) as error:
                raise LoraAssetsError(
                    f"{self.url!r} is not a URL ({error})", "Correct DAGSTER_URL."
                ) from None
            except httpx.TransportError as error:
                if not self._has_answered and is_unknown_host(error):
                    raise LoraAssetsError(
                        f"The host of Dagster's address {self.url} does not exist ({error})",
                        "Set DAGSTER_URL to the address of Dagster's webserver.",
                    ) from None
                reply, lost = None, str(error) or type(error).__name__
            if reply is not None:
                self._has_answered = True
                if reply.status_code < 500:
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


def _load_error(error: Mapping[str, Any]) -> str:
    """Return why a code location failed to load: its own error, and none of gRPC's."""
    if error["className"] == "DagsterUserCodeUnreachableError":
        return "its server does not answer"
    chain = [error, *(link["error"] for link in error["errorChain"])]
    return _line(chain[-1]["message"])


def _line(text: str) -> str:
    """Return a message, which may have a stack trace, as one line."""
    return " ".join(text.split())[:500]
