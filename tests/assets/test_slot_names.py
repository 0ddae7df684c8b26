"""A fleet whose slots have names of their own, from the deployment to the rollback."""

from collections.abc import Mapping
from pathlib import Path

from mlflow import MlflowClient

from lora_assets.records.served import CANDIDATE_SLOT, LIVE_SLOT
from lora_assets.settings import read_settings
from lora_assets.stack_resources import Resources, make_resources
from tests.support.commands import Run
from tests.support.promotions import ROWS, stage, take_through

SLOTS = {"LIVE_SLOT": "answers", "CANDIDATE_SLOT": "next-answers"}


def serving(resources: Resources) -> Mapping[str, str | None]:
    url = resources.fleet.vllm_url
    names = (*SLOTS.values(), LIVE_SLOT, CANDIDATE_SLOT)
    return {name: resources.fleet.discover().serving(name)[url] for name in names}


def test_no_asset_and_no_command_leaves_the_slots_of_the_environment(
    environment: Mapping[str, str], adapter_folders: tuple[Path, ...], run: Run
) -> None:
    environment = {**environment, **SLOTS}
    named = make_resources(read_settings(environment))
    before = serving(named)
    first = stage(named, adapter_folders[0], "1")
    assert take_through(named, "1").baseline is None
    second = stage(named, adapter_folders[1], "2")
    metrics = take_through(named, "2")
    assert metrics.baseline_source == "measured"
    promoted = {**before, "answers": second.digest, "next-answers": second.digest}
    assert serving(named) == promoted

    # What the warm-up asked is not in the window that the server's histograms are read over.
    assert metrics.baseline is not None
    assert {histogram.requests for histogram in metrics.server} == {2 * ROWS}

    tracked = MlflowClient(named.tracking.tracking_uri).get_run(metrics.mlflow_run_id).data.params
    assert (tracked["live_adapter"], tracked["candidate_adapter"]) == ("answers", "next-answers")

    ended, _ = run(environment, "rollback")
    assert ended == 0
    assert serving(named) == {**promoted, "answers": first.digest}
    for replica in named.fleet.discover().members:
        for slot in SLOTS.values():
            replica.folder.clear_slot(slot)
            replica.unload(slot)
