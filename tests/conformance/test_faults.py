"""Processes that are killed and bytes that change, on real vLLM or the embedded server."""

import os
import signal
import subprocess
import sys
from dataclasses import replace

import dagster as dg
import pytest

from lora_assets.errors import LoraAssetsError
from lora_assets.records.served import LIVE_SLOT
from lora_assets.resources.fleet import Fleet
from lora_assets.serving.replicas import Replicas
from tests.support.interruptions import POINTS, interrupt
from tests.support.promotions import aliases, roll_back
from tests.support.repairs import Watch
from tests.support.replicas import Known, Stack, running


@pytest.fixture
def watch(stack: Stack, instance: dg.DagsterInstance) -> Watch:
    return Watch(stack.resources, instance)


@pytest.fixture(autouse=True)
def live(stack: Stack) -> Known:
    """The adapter that is live; the only one that the replicas have."""
    stack.stage(1)
    stack.promote(1)
    return stack.adapter(1)


@pytest.mark.parametrize("point", POINTS)
def test_a_promotion_whose_process_is_killed_is_finished_by_the_next_one(
    stack: Stack, point: str
) -> None:
    stack.stage(2)
    command = [sys.executable, "-m", "tests.support.interruptions", point]
    killed = subprocess.run(command, env={**os.environ, **stack.environment}, check=False)
    assert killed.returncode == -signal.SIGKILL
    stack.assert_answers(stack.adapter(1 if point in POINTS[:2] else 2), 0)
    stack.promote(2)
    assert aliases(stack.resources) == {"live": 2, "previous": 1}
    stack.assert_answers(stack.adapter(2), 1)


@pytest.mark.parametrize("point", POINTS[:3])
def test_a_promotion_whose_replica_is_killed_names_it_and_ends_well_after_its_restart(
    stack: Stack, watch: Watch, monkeypatch: pytest.MonkeyPatch, point: str
) -> None:
    survivor, victim = stack.servers
    stack.stage(2)
    with monkeypatch.context() as patch:
        interrupt(point, victim.kill, patch.setattr)
        with pytest.raises(LoraAssetsError, match=victim.url):
            stack.promote(2)
    stack.on(survivor).assert_answers(stack.adapter(2 if point == POINTS[2] else 1), 0)
    victim.start()
    stack.promote(2)
    assert aliases(stack.resources) == {"live": 2, "previous": 1}
    stack.assert_answers(stack.adapter(2), 1)
    # The promotion brought what it promotes; a restarted replica lacks `previous` too.
    assert f"{victim.url} serves nothing as " in watch.requested()
    watch.repair()
    assert "Every replica serves" in watch.skipped()


def test_a_rollback_goes_on_without_a_replica_that_is_down_which_comes_back_with_it(
    stack: Stack, watch: Watch, live: Known, capsys: pytest.CaptureFixture[str]
) -> None:
    survivor, victim = stack.servers
    stack.stage(2)
    stack.promote(2)
    victim.kill()
    roll_back(stack.resources)
    assert aliases(stack.resources) == {"live": 1, "previous": 2}
    assert f"{victim.url} is down: it may come up with" in capsys.readouterr().err
    stack.on(survivor).assert_answers(live, 0)
    victim.start()
    assert {*stack.replicas().serving(LIVE_SLOT).values()} <= {live.digest, None}
    watch.requested()
    watch.repair()
    stack.assert_answers(live, 1)


def test_a_replica_that_restarted_and_one_that_joins_serve_only_after_their_repair(
    stack: Stack, watch: Watch, live: Known
) -> None:
    name = stack.resources.registry.aliases()["live"].serving_name
    first, second = stack.servers
    second.kill()
    second.launch()
    with running(first.options.adapters_dir) as third:
        second.await_ready()
        third.await_ready()
        larger = stack.on(first, second, third)
        urls = [server.url for server in larger.servers]
        held = larger.replicas().serving(name)
        assert held == {urls[0]: live.digest, urls[1]: None, urls[2]: None}
        watch = Watch(larger.resources, watch.instance)
        assert f"{urls[1]} serves nothing as {name}" in watch.requested()
        watch.repair()
        assert larger.replicas().serving(name) == dict.fromkeys(urls, live.digest)
        larger.assert_answers(live, 2)
        assert "Every replica serves" in watch.skipped()


def test_a_replica_that_gets_ready_during_a_promotion_gets_the_new_adapter_and_others_are_named(
    stack: Stack, live: Known, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stack.stage(2)
    discover = Fleet.discover

    def ready(fleet: Fleet) -> Replicas:
        found = discover(fleet)
        is_live = stack.resources.registry.aliases()["live"].digest != live.digest
        members = found.members if is_live else found.members[:1]
        return replace(found, members=members, waiting={"vllm-7 is pending": None})

    with monkeypatch.context() as patch:
        patch.setattr(Fleet, "discover", ready)
        stack.promote(2)
    digest = stack.adapter(2).digest
    assert list(stack.replicas().serving(LIVE_SLOT).values()) == [digest, digest]
    printed = capsys.readouterr().err
    assert f"also: {stack.servers[1].url}" in printed
    assert "vllm-7 is pending: it may come up with what was live before" in printed
