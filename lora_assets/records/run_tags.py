"""Tags that say why a run exists, and who wanted it."""

import getpass
import os
from collections.abc import Mapping

from lora_assets.records.progress import BACKFILL_TAG

BY = "lora_assets/by"
"""Who typed the command that launched the run."""

WHY = "lora_assets/why"
"""A short sentence: which command, sensor or person wanted the run."""

ARGO_WORKFLOW = "lora_assets/argo_workflow"
"""The Argo workflow that launched the run: its URL, or its name."""

WORKFLOW_ENDS = "adapter"
"""The asset on whose partitions a workflow's end is an observation. A run that has ended takes no
more tags, and `training_data` is observed when the sensor is switched on."""

_ENDED = "Ended: Argo workflow "

PASSED_OVER: Mapping[str, str] = {"lora_assets/not_promoted": "overtaken"}
"""Of a run that did not promote its version, since live had overtaken it."""

STOPPED_BY = "lora_assets/stopped_by"
"""The gate that said no in a run; one that crashed has no such tag."""

AHEAD_OF_TRAINING: Mapping[str, str] = {"dagster/priority": "1"}
"""Of a run that is not to wait in the queue behind all those that are to be trained."""


def launch_tags(why: str, argo_workflow: str) -> Mapping[str, str]:
    """Return the tags of a run that a command launches; `argo_workflow` may be empty."""
    return {WHY: why, BY: user(), **({ARGO_WORKFLOW: argo_workflow} if argo_workflow else {})}


def requested_by(tags: Mapping[str, str]) -> str:
    """Return who or what started a run, as its tags say it."""
    if ARGO_WORKFLOW in tags:
        return f"Argo workflow {tags[ARGO_WORKFLOW]}"
    if BY in tags:
        return tags[BY]
    if "dagster/sensor_name" in tags:
        return f"sensor {tags['dagster/sensor_name']}"
    if BACKFILL_TAG in tags:
        return f"backfill {tags[BACKFILL_TAG]}"
    return "Dagster's UI"


def user() -> str:
    """Return the name of the user whose process this is; its number where it has none."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"user {os.getuid()}"


def workflow_end(workflow: str) -> str:
    """Return the text of the observation that a workflow has ended."""
    return f"{_ENDED}{workflow}"


def ended_workflow(observation: str | None) -> str | None:
    """Return the workflow whose end an observation's text reports; None for another text."""
    text = observation or ""
    return text.removeprefix(_ENDED) if text.startswith(_ENDED) else None
