"""Processes that are killed and bytes that change, on real vLLM or the embedded server."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import dagster as dg
import pytest

from lora_assets.errors import LoraAssetsError
from lora_assets.resources.fleet import LIVE_SLOT
from lora_assets.serving.adapter_files import WEIGHTS
from tests.support.interruptions import POINTS, damage, flip_a_byte, interrupt
from tests.support.promotions import aliases, promote, stage
from tests.support.repairs import Watch
from tests.support.replicas import (
    Answers,
    Known,
    RunningServer,
    StackOfReplicas,
    assert_answers,
    running,
    stack_of,
)


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as instance:
        yield instance


@pytest.fixture
def live(stack: StackOfReplicas, adapters: Sequence[Known]) -> Known:
    """The adapter that is live; the only one that the replicas have."""
    stage(stack.resources, adapters[0].source, "1")
    promote(stack.resources, "1")
    return adapters[0]


@pytest.mark.parametrize("point", POINTS)
def test_a_promotion_whose_process_is_killed_is_finished_by_the_next_one(
    stack: StackOfReplicas, live: Known, adapters: Sequence[Known], fresh: Answers, point: str
) -> None:
    stage(stack.resources, adapters[1].source, "2")
    command = [sys.executable, "-m", "tests.support.interruptions", point]
    killed = subprocess.run(command, env={**os.environ, **stack.environment}, check=False)
    assert killed.returncode == -signal.SIGKILL
    between = live if point in POINTS[:2] else adapters[1]
    assert_answers(stack.resources.fleet, LIVE_SLOT, between, fresh, 0)
    promote(stack.resources, "2")
    assert aliases(stack.resources) == {"live": 2, "previous": 1}
    assert_answers(stack.resources.fleet, LIVE_SLOT, adapters[1], fresh, 1)


@pytest.mark.parametrize("point", POINTS[:3])
def test_a_promotion_whose_replica_is_killed_names_it_and_ends_well_after_its_restart(
    stack: StackOfReplicas,
    servers: Sequence[RunningServer],
    live: Known,
    adapters: Sequence[Known],
    fresh: Answers,
    instance: dg.DagsterInstance,
    monkeypatch: pytest.MonkeyPatch,
    point: str,
) -> None:
    stage(stack.resources, adapters[1].source, "2")
    with monkeypatch.context() as patch:
        interrupt(point, servers[1].kill, patch.setattr)
        with pytest.raises(LoraAssetsError, match=servers[1].url):
            promote(stack.resources, "2")
    alone = stack_of(Path(stack.environment["LORA_ASSETS_HOME"]), servers[:1]).resources
    assert_answers(alone.fleet, LIVE_SLOT, adapters[1] if point == POINTS[2] else live, fresh, 0)
    servers[1].start()
    servers[1].await_health()
    if point == POINTS[2]:
        assert "promotion is under way" in Watch(stack.resources, instance).skipped()
    promote(stack.resources, "2")
    assert aliases(stack.resources) == {"live": 2, "previous": 1}
    assert_answers(stack.resources.fleet, LIVE_SLOT, adapters[1], fresh, 1)
    # The promotion brought what it promotes; a restarted replica lacks `previous` too.
    assert f"{servers[1].url} serves nothing as " in Watch(stack.resources, instance).requested()
    Watch(stack.resources, instance).repair()
    assert "Every replica serves" in Watch(stack.resources, instance).skipped()


def test_a_replica_that_restarted_and_one_that_joins_serve_only_after_their_repair(
    stack: StackOfReplicas,
    servers: Sequence[RunningServer],
    live: Known,
    fresh: Answers,
    instance: dg.DagsterInstance,
) -> None:
    name = stack.resources.registry.aliases()["live"].serving_name
    servers[1].kill()
    servers[1].start()
    with running(servers[0].options.adapters_dir) as third:
        servers[1].await_health()
        third.await_health()
        larger = stack_of(Path(stack.environment["LORA_ASSETS_HOME"]), [*servers, third]).resources
        urls = [server.url for server in (*servers, third)]
        held = larger.fleet.discover().serving(name)
        assert held == {urls[0]: live.digest, urls[1]: None, urls[2]: None}
        found = Watch(larger, instance).requested()
        assert f"{urls[1]} serves nothing as {name}" in found
        Watch(larger, instance).repair()
        assert larger.fleet.discover().serving(name) == dict.fromkeys(urls, live.digest)
        assert_answers(larger.fleet, LIVE_SLOT, live, fresh, 2)
        assert "Every replica serves" in Watch(larger, instance).skipped()


def test_a_byte_that_changed_in_the_registry_or_on_the_way_is_refused(
    stack: StackOfReplicas,
    live: Known,
    adapters: Sequence[Known],
    fresh: Answers,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    on_the_way = stage(stack.resources, adapters[1].source, "2")
    with monkeypatch.context() as patch:
        flip_a_byte(patch.setattr)
        with pytest.raises(LoraAssetsError, match=f"not {on_the_way.digest[:12]}"):
            promote(stack.resources, "2")
    promote(stack.resources, "2")
    in_the_registry = stage(stack.resources, adapters[2].source, "3")
    newest = max(tmp_path.glob(f"mlflow-artifacts/**/{WEIGHTS}"), key=lambda f: f.stat().st_mtime)
    damage(newest)
    with pytest.raises(LoraAssetsError, match=f"expected {in_the_registry.digest[:12]}"):
        promote(stack.resources, "3")
    assert_answers(stack.resources.fleet, LIVE_SLOT, adapters[1], fresh, 0)


def test_a_byte_that_changed_on_a_replica_is_found_and_mended(
    stack: StackOfReplicas, live: Known, fresh: Answers, instance: dg.DagsterInstance
) -> None:
    fleet = stack.resources.fleet
    damage(Path(fleet.adapters_dir) / live.digest / WEIGHTS)
    assert f"expected {live.digest[:12]}" in Watch(stack.resources, instance).requested()
    Watch(stack.resources, instance).repair()
    assert fleet.discover().holds(live.digest)
    assert_answers(fleet, LIVE_SLOT, live, fresh, 0)
