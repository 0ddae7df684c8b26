"""Two replicas: what is deployed is deployed on both, and a failure leaves both as they were."""

import re
import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

from lora_assets.embedded.server.api import create_app
from lora_assets.embedded.server.batching import Engine
from lora_assets.embedded.server.options import PACKAGED_BASE_MODEL, ServerOptions
from lora_assets.embedded.server.process import start_engine
from lora_assets.errors import LoraAssetsError
from lora_assets.gates.smoke import PROMPTS
from lora_assets.records.base_model import Base
from lora_assets.records.served import AdapterShape
from lora_assets.records.training import EMBEDDED_PARAMETERS
from lora_assets.resources.fleet import Fleet
from lora_assets.serving import adapter_files
from lora_assets.serving.replica import Replica
from lora_assets.serving.replica_folder import shared_folder
from lora_assets.serving.replicas import Replicas, same_logprobs
from lora_assets.serving.vllm_plugin.adapters_folder import contents, digest_folder
from lora_assets.serving.vllm_plugin.slots import SlotMiddleware
from lora_assets.training.base_answers import base_answers
from lora_assets.training.base_identity import base_identity
from lora_assets.training.qlora import load_model, load_tokenizer
from tests.support.commands import spoil
from tests.support.doubles.broken_vllm import BASE, BrokenVllm, listening
from tests.support.stack import free_port

SLOT = "live-slot"
LOAD, UNLOAD, COMPLETE = (
    f"/v1/{each}" for each in ("load_lora_adapter", "unload_lora_adapter", "completions")
)


@dataclass
class Site:
    """Servers, the folder that they share, and each adapter in it: own name and digest."""

    engine: Engine
    root: Path
    stack: ExitStack
    url: str = ""
    deployed: list[tuple[str, str]] = field(default_factory=list)

    def start(self, folder: Path | None = None, slots: bool = True) -> str:
        """Start a server and return its URL."""
        app = create_app(self.engine, ServerOptions(adapters_dir=folder or self.root))
        if not slots:
            kept = [each for each in app.user_middleware if str(each.cls) != str(SlotMiddleware)]
            app.user_middleware = kept
        return self.stack.enter_context(listening(app))

    def double(self, double: BrokenVllm) -> str:
        return self.stack.enter_context(listening(double.app()))

    def replicas(self, *urls: str) -> Replicas:
        return Fleet(
            vllm_url=urls[0],
            adapters_dir=str(self.root),
            replica_urls=[*urls],
            base_model=str(PACKAGED_BASE_MODEL),
            timeout=30.0,
        ).discover()

    def place(self, *folders: Path) -> None:
        for number, folder in enumerate(folders):
            digest = digest_folder(folder)
            self.replicas("http://none").place(folder, digest)
            self.deployed.append((f"m-v{number}-{digest[:12]}", digest))

    def state(self, *urls: str) -> Any:
        """What each server lists, and every link of the folder that they share."""
        listed = [replica.loaded() for replica in self.replicas(*urls).members] if urls else []
        return listed, contents(self.root)["slots"]


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
def site(engine: Engine, tmp_path: Path) -> Iterator[Site]:
    with ExitStack() as stack:
        yield Site(engine, tmp_path / "adapters", stack)


@pytest.fixture
def serving(site: Site, adapter_folders: tuple[Path, ...]) -> Site:
    """A server whose slot serves the first of two adapters, both with their bytes in place."""
    site.place(*adapter_folders[:2])
    site.url = site.start()
    replica = site.replicas(site.url).members[0]
    name, digest = site.deployed[0]
    replica.folder.set_name(name, digest)
    replica.folder.set_slot(SLOT, name)
    replica.load(name, f"{site.root}/{digest}")
    return site


def alike(replicas: Replicas, one: str, other: str) -> bool:
    """Whether two names answer with the same weights on every replica."""
    return all(
        same_logprobs(*(replica.complete(name, PROMPTS[0], 8).logprobs for name in (one, other)))
        for replica in replicas.members
    )


@pytest.mark.parametrize("first", [True, False])
def test_a_dead_replica_is_named_and_the_other_keeps_what_it_had(
    serving: Site, first: bool
) -> None:
    dead = f"http://127.0.0.1:{free_port()}"
    replicas = serving.replicas(*((dead, serving.url) if first else (serving.url, dead)))
    before = serving.state(serving.url)
    with pytest.raises(LoraAssetsError, match=f"{dead} is unreachable"):
        replicas.load(*serving.deployed[1])
    assert serving.state(serving.url) == before
    with pytest.raises(LoraAssetsError, match=f"{dead} is unreachable"):
        replicas.renew_slot(SLOT, *serving.deployed[0])
    assert serving.state(serving.url) == before
    place = {"vllm_url": dead, "adapters_dir": str(serving.root)}
    assert [each.url for each in Fleet(**place).answering().members] == [dead]
    with pytest.raises(LoraAssetsError, match=f"1 of at least 2 .*{dead} is down"):
        Fleet(**place, replica_urls=[serving.url, dead], min_replicas=2).answering()


@pytest.mark.parametrize("path", [LOAD, COMPLETE])
def test_a_replica_that_fails_first_is_named_has_the_name_no_more_and_no_other_is_asked(
    serving: Site, path: str
) -> None:
    bad, other = serving.double(BrokenVllm(faults={path: 500})), BrokenVllm()
    before = serving.state(serving.url, bad)
    with pytest.raises(LoraAssetsError, match=f"{bad} answered {path} with 500"):
        serving.replicas(bad, serving.url, serving.double(other)).load(*serving.deployed[1])
    assert (serving.state(serving.url, bad), other.asked) == (before, [])


def test_a_slot_stays_as_it_was_where_one_replica_fails_after_the_others_are_done(
    serving: Site,
) -> None:
    (old, _), (name, digest) = serving.deployed
    folders = dict.fromkeys((name, SLOT), f"{serving.root}/{digest}")
    fails, works = (
        BrokenVllm(slots_folder=str(serving.root), adapters=dict(folders)) for _ in range(2)
    )
    replicas = serving.replicas(serving.double(fails), serving.double(works))
    replicas.folders[0].set_name(name, digest)
    fails.faults[COMPLETE] = 500
    # To list what it serves is the last that each is asked for.
    fails.waits[COMPLETE] = lambda: works.asked[-2:] == [COMPLETE, "/v1/models"]
    with pytest.raises(LoraAssetsError, match="with 500"):
        replicas.renew_slot(SLOT, name, digest)
    assert serving.state() == ([], {SLOT: old})


def test_the_cause_is_said_also_where_another_replica_cannot_go_back(serving: Site) -> None:
    urls = [serving.double(BrokenVllm(faults=f)) for f in ({UNLOAD: 503}, {LOAD: 500})]
    with pytest.raises(LoraAssetsError, match=f"{urls[1]} answered {LOAD} with 500") as raised:
        serving.replicas(*urls).load(*serving.deployed[1])
    assert f"{urls[0]} answered {UNLOAD} with 503" in str(raised.value)


def test_one_replica_goes_first_and_the_others_at_once_after_it(serving: Site) -> None:
    first, *both = BrokenVllm(), BrokenVllm(), BrokenVllm()
    first.waits[LOAD] = lambda: not both[0].asked + both[1].asked
    for one, other in (both, both[::-1]):
        one.waits[LOAD] = lambda other=other: LOAD in other.asked  # type: ignore[misc]
    serving.replicas(*map(serving.double, (first, *both))).load(*serving.deployed[0])
    assert first.adapters == both[0].adapters == both[1].adapters != {}


def test_an_adapter_that_the_first_folder_cannot_take_is_not_placed_in_another(
    adapter_folders: tuple[Path, ...], tmp_path: Path
) -> None:
    (tmp_path / "first").write_text("in the way")
    folders = (shared_folder(str(tmp_path / name)) for name in ("first", "other"))
    members = tuple(Replica("http://none", "", 1.0, folder) for folder in folders)
    digest = digest_folder(adapter_folders[0])
    with pytest.raises(LoraAssetsError, match=f"Can't change {tmp_path}/first"):
        Replicas(members, "base", 8, "candidate").place(adapter_folders[0], digest)
    assert not (tmp_path / "other").exists()


def test_an_adapter_that_changes_nothing_is_refused_by_name_and_does_not_answer(
    site: Site, adapter_folders: tuple[Path, ...], tmp_path: Path
) -> None:
    idle = Path(shutil.copytree(adapter_folders[0], tmp_path / "idle"))
    weights = load_file(idle / adapter_files.WEIGHTS)
    zeroed = {n: np.zeros_like(w) if "lora_B" in n else w for n, w in weights.items()}
    save_file(zeroed, idle / adapter_files.WEIGHTS)
    site.place(idle)
    replicas = site.replicas(site.start(), site.start())
    name = site.deployed[0][0]
    with pytest.raises(LoraAssetsError, match=f"as {name} exactly as its base model") as raised:
        replicas.load(*site.deployed[0])
    assert replicas.members[0].url in str(raised.value)
    for replica in replicas.members:
        assert replica.loaded() == {}
        with pytest.raises(LoraAssetsError, match="404"):
            replica.complete(name, "a", 1)


def test_a_byte_changed_in_the_folder_is_refused_before_anything_is_loaded(serving: Site) -> None:
    digest = serving.deployed[1][1]
    spoil(serving.root / digest / adapter_files.WEIGHTS)
    before = serving.state(serving.url), contents(serving.root)
    replicas = serving.replicas(serving.url)
    assert not replicas.holds(digest)
    with pytest.raises(LoraAssetsError, match=f"{digest[:12]} has digest .* have changed"):
        replicas.load(*serving.deployed[1])
    assert (serving.state(serving.url), contents(serving.root)) == before
    assert replicas.members[0].served().damaged == (digest,)


def test_retiring_removes_what_nothing_points_at_and_nothing_else(
    site: Site, adapter_folders: tuple[Path, ...]
) -> None:
    replicas = site.replicas(site.start(), site.start())
    site.place(*adapter_folders[:3])
    for name, digest in site.deployed:
        replicas.load(name, digest)
    replicas.renew_slot(SLOT, *site.deployed[0])
    replicas.retire([site.deployed[1][1]])
    kept = dict(site.deployed[:2])
    for replica in replicas.members:
        served = replica.served()
        assert served.adapters == {**kept, SLOT: site.deployed[0][1]}
        assert served.damaged == ()
    assert contents(site.root)["names"] == kept
    assert set(contents(site.root)["digests"]) == set(kept.values())


def test_a_server_that_reads_another_folder_is_named_and_no_slot_moves(
    serving: Site, tmp_path: Path
) -> None:
    serving.replicas(serving.url).load(*serving.deployed[1])
    before = serving.state(serving.url), contents(serving.root)
    elsewhere = serving.start(folder=tmp_path / "elsewhere")
    with pytest.raises(LoraAssetsError, match=f"{elsewhere} reads its slots from .*/elsewhere"):
        serving.replicas(elsewhere, serving.url).renew_slot(SLOT, *serving.deployed[1])
    assert (serving.state(serving.url), contents(serving.root)) == before


@pytest.mark.parametrize("looks", [None, 2])
def test_a_slot_that_answers_with_other_weights_is_put_back_unless_another_one_has_set_it(
    serving: Site, looks: int | None
) -> None:
    (_, old), (name, digest) = serving.deployed
    folders = {name: f"{serving.root}/{digest}", SLOT: f"{serving.root}/{old}"}
    url = serving.double(BrokenVllm(slots_folder=str(serving.root), adapters=folders))
    replicas = serving.replicas(url)
    replicas.load(name, digest)
    before, asked = serving.state(), count()

    def may_go_on() -> bool:
        # The last look before it is put back: this process then stands still, and another sets it.
        if next(asked) == looks:
            replicas.folders[0].set_slot(SLOT, name)
        return True

    cause = f"{url} answers as {SLOT} with other weights"
    with pytest.raises(LoraAssetsError, match=cause) as raised:
        replicas.renew_slot(SLOT, name, digest, may_go_on=may_go_on)
    assert serving.state() == (([], {SLOT: name}) if looks else before)
    assert (f"not put back: {serving.root}: another one has set" in str(raised.value)) == bool(
        looks
    )


def test_without_the_middleware_a_slot_is_unloaded_and_loaded_again(
    site: Site, adapter_folders: tuple[Path, ...]
) -> None:
    url = site.start(slots=False)
    replicas = site.replicas(url)
    assert replicas.without_slots() == [url]
    site.place(*adapter_folders[:2])
    for name, digest in site.deployed:
        replicas.load(name, digest)
        replicas.renew_slot(SLOT, name, digest)
        assert replicas.serving(SLOT) == {url: digest}
        assert alike(replicas, SLOT, name)


def test_without_the_middleware_a_failed_load_brings_the_slot_back(serving: Site) -> None:
    (_, old), (name, digest) = serving.deployed
    folders = {name: f"{serving.root}/{digest}", SLOT: f"{serving.root}/{old}"}
    double = BrokenVllm(adapters=folders, faults={LOAD: 500})

    def once() -> bool:
        if double.asked.count(LOAD) > 1:
            double.faults.clear()
        return True

    double.waits[LOAD] = once
    with pytest.raises(LoraAssetsError, match="with 500"):
        serving.replicas(serving.double(double)).renew_slot(SLOT, name, digest)
    assert double.adapters[SLOT] == f"{serving.root}/{old}"


def test_preflight_names_each_replica_that_cannot_take_it_with_the_flag_and_copies_nothing(
    site: Site,
) -> None:
    one, none, good = (site.double(BrokenVllm(max_lora=most)) for most in (1, None, 8))
    adapter = AdapterShape(rank=8, base_model=BASE, modules={})
    site.replicas(site.start()).preflight(adapter)
    with pytest.raises(LoraAssetsError, match=f"{one} can't take the adapter") as raised:
        site.replicas(one, none, good).preflight(adapter)
    for words in ("--max-loras 3", f"{none} can't take the adapter", "--enable-lora"):
        assert words in str(raised.value)
    assert good not in str(raised.value)
    assert not site.root.exists()


def test_another_base_model_is_refused_by_its_digest_or_else_by_its_answers(site: Site) -> None:
    folder = str(PACKAGED_BASE_MODEL)
    base = load_model(folder, EMBEDDED_PARAMETERS)
    answers = base_answers(base, load_tokenizer(folder))
    trained = Base(identity=base_identity(folder), answers=answers)
    telling, silent = site.start(), site.start(slots=False)
    assert site.replicas(telling, silent).unproved(trained) == []
    # Where the server tells nothing and no answers are kept, nothing is proved.
    bare = Base(identity=trained.identity)
    assert site.replicas(telling, silent).unproved(bare) == [silent]
    assert site.replicas(telling, silent).unproved(Base()) == [telling, silent]
    other = Base(identity="0" * 64, answers=answers)
    with pytest.raises(LoraAssetsError, match=f"^{telling} serves another base.* digest") as told:
        site.replicas(telling, silent).unproved(other)
    assert silent not in str(told.value)
    with torch.no_grad():
        base.get_input_embeddings().weight.copy_(base.get_input_embeddings().weight.roll(1, 0))
    other = Base(identity=trained.identity, answers=base_answers(base, load_tokenizer(folder)))
    with pytest.raises(LoraAssetsError, match=f"^{silent} serves another base.* of 24 next tokens"):
        site.replicas(telling, silent).unproved(other)


def test_the_longest_prompt_is_set_or_told_by_the_server_and_never_guessed(site: Site) -> None:
    known = {"adapters_dir": str(site.root)}
    assert Fleet(vllm_url=site.start(), **known).longest() == (1024, "")
    assert Fleet(vllm_url="http://127.0.0.1:9", max_model_len=512, **known).longest() == (512, "")
    silent = site.double(BrokenVllm())
    for url, reason in ((silent, "does not tell it"), ("http://127.0.0.1:9", "unreachable")):
        told, line = Fleet(vllm_url=url, **known).longest()
        assert told is None
        assert re.fullmatch(f"rows are not measured .*{reason}.*: set VLLM_MAX_MODEL_LEN", line)


def test_the_key_is_in_no_representation_of_the_fleet() -> None:
    fleet = Fleet(vllm_url="http://a", adapters_dir="/a", api_key="sk-very-secret")
    assert fleet.discover().members[0].api_key == "sk-very-secret"
    assert "sk-very-secret" not in f"{fleet!r} {fleet} {fleet.discover()!r}"
