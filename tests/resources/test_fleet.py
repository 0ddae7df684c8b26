"""Two replicas: what is deployed is deployed on both, and a failure leaves both as they were."""

import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fastapi import FastAPI
from safetensors.numpy import load_file, save_file

from lora_assets.embedded.server.api import create_app
from lora_assets.embedded.server.batching import Engine
from lora_assets.embedded.server.options import PACKAGED_BASE_MODEL, ServerOptions
from lora_assets.embedded.server.process import start_engine
from lora_assets.errors import LoraAssetsError
from lora_assets.records.served import AdapterShape
from lora_assets.resources.fleet import Fleet
from lora_assets.serving import adapter_files
from lora_assets.serving.replicas import same_logprobs
from lora_assets.serving.vllm_plugin.adapters_folder import contents, digest_folder
from lora_assets.serving.vllm_plugin.slots import SlotMiddleware
from tests.support.doubles.broken_vllm import BASE, BrokenVllm, listening
from tests.support.stack import free_port

PROMPTS = ("[INST] Context: ListBuckets: Returns all buckets. Question: What is it? [/INST]",)
SLOT = "live-slot"
Start = Callable[..., str]


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    """One base model for all servers, run as the server runs it; each has its own adapters."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    engine = start_engine(ServerOptions(adapters_dir=Path("/nowhere")))
    yield engine
    engine.close()
    torch.set_num_threads(threads)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "adapters"


@pytest.fixture
def start(engine: Engine, root: Path) -> Iterator[Start]:
    """Start a server, or a double of one; returns its URL."""
    with ExitStack() as stack:

        def run(double: BrokenVllm | None = None, folder: Path = root, slots: bool = True) -> str:
            if double is not None:
                return stack.enter_context(listening(double.app()))
            app: FastAPI = create_app(engine, ServerOptions(adapters_dir=folder))
            if not slots:
                app.user_middleware = [
                    m
                    for m in app.user_middleware
                    if m.cls is not SlotMiddleware  # type: ignore[comparison-overlap]
                ]
            return stack.enter_context(listening(app))

        yield run


@pytest.fixture
def fleet_of(root: Path) -> Callable[..., Fleet]:
    def make(*urls: str, **changes: Any) -> Fleet:
        settings = {"timeout": 30.0, "base_model": str(PACKAGED_BASE_MODEL), **changes}
        return Fleet(vllm_url=urls[0], adapters_dir=str(root), replica_urls=[*urls], **settings)

    return make


Deployed = tuple[str, str]


def place(fleet: Fleet, folders: Sequence[Path]) -> list[Deployed]:
    """Each adapter's own name and digest, its bytes in the fleet's folder."""
    found = [(f"m-v{n}-{digest_folder(f)[:12]}", digest_folder(f)) for n, f in enumerate(folders)]
    for folder, (_, digest) in zip(folders, found, strict=True):
        fleet.discover().place(folder, digest)
    return found


def state(*urls: str, root: Path) -> Any:
    """What each server lists, and every link of the folder that they share."""
    listed = [Fleet(vllm_url=url, adapters_dir="/").discover().members[0].loaded() for url in urls]
    return listed, contents(root)["names"], contents(root)["slots"]


def alike(fleet: Fleet, one: str, other: str) -> bool:
    """Whether two names answer with the same weights on every replica."""
    return all(
        same_logprobs(*(replica.complete(name, PROMPTS[0], 8).logprobs for name in (one, other)))
        for replica in fleet.discover().members
    )


def test_loading_and_renewing_reach_both_replicas(
    start: Start, fleet_of: Callable[..., Fleet], adapter_folders: tuple[Path, ...]
) -> None:
    fleet = fleet_of(start(), start())
    deployed = place(fleet, adapter_folders[:2])
    for name, digest in (*deployed, deployed[0]):
        fleet.discover().load(name, digest, PROMPTS)
        fleet.discover().renew_slot(SLOT, name, digest, PROMPTS)
        urls = [replica.url for replica in fleet.discover().members]
        assert fleet.discover().serving(SLOT) == dict.fromkeys(urls, digest)
        assert fleet.discover().serving(name) == dict.fromkeys(urls, digest)
        assert alike(fleet, SLOT, name)
    assert not alike(fleet, deployed[0][0], deployed[1][0])
    assert fleet.discover().without_slots() == []
    assert fleet.discover().serving("unknown") == dict.fromkeys(
        fleet.discover().serving(SLOT), None
    )


@pytest.fixture
def serving_first(
    start: Start, fleet_of: Callable[..., Fleet], adapter_folders: tuple[Path, ...]
) -> tuple[str, list[Deployed]]:
    """A server whose slot serves the first of two adapters, both with their bytes in place."""
    url = start()
    replica = fleet_of(url).discover().members[0]
    deployed = place(fleet_of(url), adapter_folders[:2])
    replica.folder.set_name(*deployed[0])
    replica.folder.set_slot(SLOT, deployed[0][0])
    replica.load(deployed[0][0], f"{replica.folder.path}/{deployed[0][1]}")
    return url, deployed


@pytest.mark.parametrize("first", [True, False])
def test_a_dead_replica_is_named_and_the_other_keeps_what_it_had(
    serving_first: tuple[str, list[Deployed]],
    fleet_of: Callable[..., Fleet],
    root: Path,
    first: bool,
) -> None:
    url, deployed = serving_first
    dead = f"http://127.0.0.1:{free_port()}"
    fleet = fleet_of(*((dead, url) if first else (url, dead)))
    listed, _, slots = state(url, root=root)
    for act in (
        lambda: fleet.discover().load(*deployed[1], PROMPTS),
        lambda: fleet.discover().renew_slot(SLOT, *deployed[0], PROMPTS),
    ):
        with pytest.raises(LoraAssetsError, match=f"{dead} is unreachable"):
            act()
        found = state(url, root=root)
        assert (found[0], found[2]) == (listed, slots)


@pytest.mark.parametrize("path", ["/v1/load_lora_adapter", "/v1/completions"])
def test_a_replica_that_fails_while_it_loads_is_named_and_none_has_the_name(
    serving_first: tuple[str, list[Deployed]],
    start: Start,
    fleet_of: Callable[..., Fleet],
    root: Path,
    path: str,
) -> None:
    url, deployed = serving_first
    double = BrokenVllm(faults={path: 500})
    bad = start(double)
    listed, _, slots = state(url, bad, root=root)
    with pytest.raises(LoraAssetsError, match=f"{bad} answered {path} with 500"):
        fleet_of(bad, url).discover().load(*deployed[1], PROMPTS)
    found = state(url, bad, root=root)
    assert (found[0], found[2]) == (listed, slots)


def test_a_slot_stays_as_it_was_where_one_replica_fails_after_the_others_are_done(
    serving_first: tuple[str, list[Deployed]],
    start: Start,
    fleet_of: Callable[..., Fleet],
    root: Path,
) -> None:
    _, deployed = serving_first
    old, (name, digest) = deployed[0][0], deployed[1]
    folders = {name: f"{root}/{digest}", SLOT: f"{root}/{digest}"}
    fails = BrokenVllm(slots_folder=str(root), adapters=dict(folders))
    works = BrokenVllm(slots_folder=str(root), adapters=dict(folders))
    fleet = fleet_of(start(fails), start(works))
    fleet.discover().members[0].folder.set_name(name, digest)
    fails.faults["/v1/completions"] = 500
    # To list what it serves is the last that each is asked for.
    fails.waits["/v1/completions"] = lambda: works.asked[-2:] == ["/v1/completions", "/v1/models"]
    with pytest.raises(LoraAssetsError, match="with 500"):
        fleet.discover().renew_slot(SLOT, name, digest, PROMPTS)
    assert contents(root)["slots"] == {SLOT: old}


def test_the_cause_is_told_also_where_another_replica_cannot_go_back(
    serving_first: tuple[str, list[Deployed]], start: Start, fleet_of: Callable[..., Fleet]
) -> None:
    stuck = BrokenVllm(faults={"/v1/unload_lora_adapter": 503})
    urls = start(BrokenVllm(faults={"/v1/load_lora_adapter": 500})), start(stuck)
    with pytest.raises(LoraAssetsError) as raised:
        fleet_of(*urls).discover().load(*serving_first[1][1], PROMPTS)
    assert f"{urls[0]} answered /v1/load_lora_adapter with 500" in str(raised.value)
    assert f"{urls[1]} answered /v1/unload_lora_adapter with 503" in str(raised.value)


def test_replicas_are_handled_at_once(
    serving_first: tuple[str, list[Deployed]], start: Start, fleet_of: Callable[..., Fleet]
) -> None:
    both = BrokenVllm(), BrokenVllm()
    load = "/v1/load_lora_adapter"
    for one, other in (both, both[::-1]):
        one.waits[load] = lambda other=other: load in other.asked  # type: ignore[misc]
    fleet_of(*map(start, both)).discover().load(*serving_first[1][0], PROMPTS)
    assert both[0].adapters == both[1].adapters != {}


@pytest.fixture
def idle(adapter_folders: tuple[Path, ...], tmp_path: Path) -> Path:
    """An adapter whose B is 0."""
    idle = Path(shutil.copytree(adapter_folders[0], tmp_path / "idle"))
    weights = load_file(idle / adapter_files.WEIGHTS)
    zeroed = {n: np.zeros_like(w) if "lora_B" in n else w for n, w in weights.items()}
    save_file(zeroed, idle / adapter_files.WEIGHTS)
    return idle


def test_an_adapter_that_changes_nothing_is_refused_by_name_on_every_replica(
    start: Start, fleet_of: Callable[..., Fleet], idle: Path
) -> None:
    fleet = fleet_of(start(), start())
    ((name, digest),) = place(fleet, [idle])
    with pytest.raises(LoraAssetsError, match=f"as {name} exactly as its base model") as raised:
        fleet.discover().load(name, digest, PROMPTS)
    for replica in fleet.discover().members:
        assert replica.url in str(raised.value)
        assert replica.loaded() == {}


def test_an_adapter_that_was_refused_does_not_answer(
    start: Start, fleet_of: Callable[..., Fleet], idle: Path
) -> None:
    fleet = fleet_of(start())
    ((name, digest),) = place(fleet, [idle])
    with pytest.raises(LoraAssetsError, match="exactly as its base model"):
        fleet.discover().load(name, digest, PROMPTS)
    with pytest.raises(LoraAssetsError, match="404"):
        fleet.discover().members[0].complete(name, "a", 1)


def test_a_byte_changed_in_the_folder_is_refused_before_anything_is_loaded(
    serving_first: tuple[str, list[Deployed]], fleet_of: Callable[..., Fleet], root: Path
) -> None:
    url, deployed = serving_first
    name, digest = deployed[1]
    damaged = root / digest / adapter_files.WEIGHTS
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"!")
    before = state(url, root=root)
    fleet = fleet_of(url)
    assert not fleet.discover().holds(digest)
    with pytest.raises(LoraAssetsError, match=f"{digest[:12]} has digest .* have changed"):
        fleet.discover().load(name, digest, PROMPTS)
    assert state(url, root=root) == before
    assert fleet.discover().members[0].served().damaged == (digest,)


def test_retiring_removes_what_nothing_points_at_and_nothing_else(
    start: Start, fleet_of: Callable[..., Fleet], adapter_folders: tuple[Path, ...], root: Path
) -> None:
    fleet = fleet_of(start(), start())
    deployed = place(fleet, adapter_folders[:3])
    for name, digest in deployed:
        fleet.discover().load(name, digest, PROMPTS)
    fleet.discover().renew_slot(SLOT, *deployed[0], PROMPTS)
    fleet.discover().retire([deployed[1][1]])
    kept = dict(deployed[:2])
    for replica in fleet.discover().members:
        served = replica.served()
        assert served.adapters == {**kept, SLOT: deployed[0][1]}
        assert served.damaged == ()
    assert contents(root)["names"] == kept
    assert set(contents(root)["digests"]) == set(kept.values())


def test_a_server_that_reads_another_folder_is_named_and_no_slot_moves(
    serving_first: tuple[str, list[Deployed]],
    start: Start,
    fleet_of: Callable[..., Fleet],
    root: Path,
    tmp_path: Path,
) -> None:
    url, deployed = serving_first
    fleet_of(url).discover().load(*deployed[1], PROMPTS)
    before = state(url, root=root)
    elsewhere = start(folder=tmp_path / "elsewhere")
    with pytest.raises(LoraAssetsError, match=f"{elsewhere} reads its slots from .*/elsewhere"):
        fleet_of(elsewhere, url).discover().renew_slot(SLOT, *deployed[1], PROMPTS)
    assert state(url, root=root) == before


def test_a_slot_that_answers_with_other_weights_is_refused_and_put_back(
    serving_first: tuple[str, list[Deployed]],
    start: Start,
    fleet_of: Callable[..., Fleet],
    root: Path,
) -> None:
    (_, old), (name, digest) = serving_first[1]
    mixes = BrokenVllm(slots_folder=str(root))
    mixes.adapters = {name: f"{root}/{digest}", SLOT: f"{root}/{old}"}
    url = start(mixes)
    fleet_of(url).discover().load(name, digest, PROMPTS)
    before = contents(root)["slots"]
    with pytest.raises(LoraAssetsError, match=f"{url} answers as {SLOT} with other weights"):
        fleet_of(url).discover().renew_slot(SLOT, name, digest, PROMPTS)
    assert contents(root)["slots"] == before


def test_without_the_middleware_a_slot_is_unloaded_and_loaded_again(
    start: Start, fleet_of: Callable[..., Fleet], adapter_folders: tuple[Path, ...]
) -> None:
    fleet = fleet_of(start(slots=False))
    assert fleet.discover().without_slots() == [fleet.discover().members[0].url]
    for name, digest in place(fleet, adapter_folders[:2]):
        fleet.discover().load(name, digest, PROMPTS)
        fleet.discover().renew_slot(SLOT, name, digest, PROMPTS)
        assert [*fleet.discover().serving(SLOT).values()] == [digest]
        assert alike(fleet, SLOT, name)


def test_without_the_middleware_a_failed_load_brings_the_slot_back(
    serving_first: tuple[str, list[Deployed]],
    start: Start,
    fleet_of: Callable[..., Fleet],
    root: Path,
) -> None:
    (_, old), (name, digest) = serving_first[1]
    double = BrokenVllm(adapters={name: f"{root}/{digest}", SLOT: f"{root}/{old}"})
    # Its first load fails, and the next one works.
    double.faults["/v1/load_lora_adapter"] = 500
    url = start(double)

    def once() -> bool:
        if double.asked.count("/v1/load_lora_adapter") > 1:
            double.faults.clear()
        return True

    double.waits["/v1/load_lora_adapter"] = once
    with pytest.raises(LoraAssetsError, match="with 500"):
        fleet_of(url).discover().renew_slot(SLOT, name, digest, PROMPTS)
    assert double.adapters[SLOT] == f"{root}/{old}"


def test_preflight_names_each_replica_that_cannot_take_it_with_the_flag_and_copies_nothing(
    start: Start, fleet_of: Callable[..., Fleet], root: Path
) -> None:
    one, none = start(BrokenVllm(max_lora=1)), start(BrokenVllm(max_lora=None))
    adapter = AdapterShape(rank=8, base_model=BASE, modules={})
    fleet_of(start()).discover().preflight(adapter)
    with pytest.raises(LoraAssetsError) as raised:
        fleet_of(one, none, start()).discover().preflight(adapter)
    message = str(raised.value)
    assert f"{one} can't take the adapter" in message
    assert "--max-loras 3" in message
    assert f"{none} can't take the adapter" in message
    assert "--enable-lora" in message
    assert not root.exists()


def test_the_key_is_in_no_representation_of_the_fleet() -> None:
    fleet = Fleet(vllm_url="http://a", adapters_dir="/a", api_key="sk-very-secret")
    assert fleet.discover().members[0].api_key == "sk-very-secret"
    assert "sk-very-secret" not in f"{fleet!r} {fleet} {fleet.discover()!r}"
