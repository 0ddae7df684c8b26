"""status: exit 0 only where every replica serves what the aliases say."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from lora_assets.assets.served import ensure_loaded
from lora_assets.lifecycle import GATES
from lora_assets.records.model_version import ModelVersion
from lora_assets.records.served import LIVE_SLOT
from lora_assets.serving.adapter_files import WEIGHTS
from lora_assets.stack_resources import Resources
from tests.support.commands import Run, register, serve, spoil
from tests.support.doubles.broken_vllm import BrokenVllm, listening
from tests.support.records import passed_verdict
from tests.support.scripts_registry import register_by_script
from tests.support.stack import free_port, trained

KEY = "sk-very-secret"
Status = Callable[..., tuple[int, Any]]


@pytest.fixture
def environment(environment: Mapping[str, str]) -> Mapping[str, str]:
    return {**environment, "VLLM_API_KEY": KEY, "COLUMNS": "250"}


@pytest.fixture
def status(run: Run, environment: Mapping[str, str]) -> Status:
    """`lora-assets status --json`: its exit code and what it printed."""

    def ask(**changes: str) -> tuple[int, Any]:
        ended, printed = run({**environment, **changes}, "status", "--json")
        assert isinstance(ended, int)
        assert KEY not in printed
        return ended, json.loads(printed)

    return ask


@pytest.fixture
def live(resources: Resources, adapter_folders: tuple[Path, ...]) -> ModelVersion:
    version = register(resources, adapter_folders[0], "live")
    serve(resources, version, LIVE_SLOT)
    return version


def test_brackets_and_addresses_print_as_they_are(
    run: Run, environment: Mapping[str, str], live: ModelVersion
) -> None:
    url = f"http://[fe80::1]:{free_port()}"
    _, printed = run({**environment, "VLLM_REPLICAS": url}, "status")
    assert f"vLLM at {url} is unreachable" in printed
    # In the title of the replica's table, in the error and in the last line.
    assert printed.count("http://[fe80::1") == 3


def test_where_nothing_is_live_everything_agrees(status: Status) -> None:
    ended, found = status()
    assert (ended, found["agrees"], found["aliases"], found["verdicts"]) == (0, True, {}, {})


def test_where_all_agrees_it_ends_with_0_and_tells_aliases_verdicts_and_replicas(
    status: Status, resources: Resources, live: ModelVersion
) -> None:
    resources.registry.store_verdict(live, passed_verdict("eval_gate", live, None))
    ended, found = status()
    assert ended == 0
    assert found["model"] == live.model
    told = {"version": 1, "data_version": "1", "digest": live.digest}
    assert found["aliases"] == {"live": told}
    assert found["verdicts"]["1"]["eval_gate"]["passed"] is True
    (replica,) = found["replicas"]
    assert replica["url"] == resources.fleet.vllm_url
    assert replica["adapters"][LIVE_SLOT] == live.digest
    assert replica["adapters"][live.serving_name] == live.digest
    assert (replica["agrees"], replica["drift"], found["agrees"]) == (True, [], True)


def test_aliases_and_versions_of_others_are_shown_and_passed_over(
    run: Run, environment: Mapping[str, str], status: Status, resources: Resources,
    live: ModelVersion, adapter_folders: tuple[Path, ...],
) -> None:  # fmt: skip
    aliases = ("previous", "champion")
    register_by_script(resources.registry, adapter_folders[1], *aliases)
    ended, found = status()
    assert (ended, set(found["aliases"])) == (0, {"live"})
    assert found["others"] == {"previous": {"version": 2}, "champion": {"version": 2}}
    _, printed = run(environment, "status")
    (row,) = (line for line in printed.splitlines() if "champion" in line)
    assert "not ours" in row


def test_bytes_that_changed_on_a_replica_are_named(
    status: Status, resources: Resources, live: ModelVersion
) -> None:
    spoil(Path(resources.fleet.adapters_dir) / live.digest / WEIGHTS)
    ended, found = status()
    assert ended == 1
    (replica,) = found["replicas"]
    assert replica["damaged"] == [live.digest]
    assert len(replica["drift"]) == 2
    ensure_loaded(resources.registry, resources.fleet.discover(), live, resources.work_folder)
    assert status()[0] == 0


def test_a_dead_replica_is_named_beside_one_that_serves(
    status: Status, resources: Resources, live: ModelVersion
) -> None:
    dead = f"http://127.0.0.1:{free_port()}"
    alive = resources.fleet.vllm_url
    ended, found = status(VLLM_REPLICAS=f"{alive}, {dead}/")
    assert ended == 1
    good, bad = found["replicas"]
    assert (good["url"], good["agrees"]) == (alive, True)
    assert (bad["url"], bad["agrees"], bad["adapters"]) == (dead, False, {})
    assert f"{dead} is unreachable" in bad["error"]


def test_two_servers_behind_one_url_are_told_as_that(status: Status) -> None:
    with listening(BrokenVllm(several=True).app()) as url:
        ended, found = status(VLLM_REPLICAS=url)
    assert (ended, found["agrees"]) == (1, False)
    assert found["replicas"][0]["error"].startswith(f"Several servers answer at {url}: ")


def test_for_a_person_it_says_the_same(
    run: Run, environment: Mapping[str, str], resources: Resources, live: ModelVersion
) -> None:
    ended, printed = run(environment, "status")
    assert ended == 0
    signatures = "Signatures of verdicts and history are not checked: no LORA_ASSETS_VERDICT_KEY."
    words = (live.model, live.digest[:12], live.serving_name, signatures)
    assert all(word in printed for word in words)
    assert printed.splitlines()[-1] == "All replicas agree with the aliases (1)."
    resources.fleet.discover().members[0].folder.clear_slot(LIVE_SLOT)
    ended, printed = run(environment, "status")
    assert ended == 1
    assert f"serves nothing as {LIVE_SLOT}, expected {live.digest[:12]}" in printed
    assert printed.splitlines()[-1].startswith("1 of 1 replicas differ: ")
    assert KEY not in printed


@pytest.mark.parametrize(
    "words", ["status", "history", "rollback", "adopt", "ask why", "report --data-version 1"]
)
def test_a_model_that_is_not_there_is_named_with_those_that_are(
    run: Run, environment: Mapping[str, str], live: ModelVersion, words: str
) -> None:
    ended, printed = run(environment, *words.split(), "--model-name", "typo")
    assert str(ended).startswith("error: There is no registered model typo in MLflow at ")
    assert str(ended).endswith(f"Give one of {live.model}.")
    assert printed == ""


def test_what_a_gate_stopped_is_shown_the_quality_gate_too(
    run: Run, environment: Mapping[str, str], resources: Resources,
    live: ModelVersion, adapter_folders: tuple[Path, ...],
) -> None:  # fmt: skip
    own = resources.registry.model_name
    # Signed, as they are where the deployment has a key.
    tracking = resources.registry.tracking.model_copy(update={"verdict_key": "key"})
    stopped = passed_verdict("eval_gate", live, None, faults=("too few",))
    resources.registry.store_verdict(live, stopped)
    before, after = "2020-01-01T00:00:00+00:00", "2999-01-01T00:00:00+00:00"

    def fail(data_version: str, model: str, decided_at: str) -> None:
        run_of = trained(resources, adapter_folders[1], data_version).mlflow_run_id
        tracking.reopen(run_of).tags({"data.version": data_version})
        changes = {"gate": "quality_gate", "decided_at": decided_at}
        tracking.store_verdict(run_of, stopped.model_copy(update=changes), model)

    def found() -> list[tuple[str, int | None, str]]:
        told = json.loads(run(environment, "status", "--json")[1])["stopped"]
        return [(each["data_version"], each["version"], each["gate"]) for each in told]

    fail("7", own, before)
    fail("8", "model-b", before)
    # Of data version 1 a version has been registered since.
    fail("1", own, before)
    assert sorted(found()) == [("1", 1, "eval_gate"), ("7", None, "quality_gate")]
    # It is trained again in vain.
    fail("1", own, after)
    assert found()[0] == ("1", None, "quality_gate")
    assert len(found()) == 3
    ended, printed = run(environment, "status")
    assert (ended, GATES["quality_gate"].remedy.split()[0] in printed) == (0, True)
