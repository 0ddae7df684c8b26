"""One server through its API: each way in which it can be the wrong one, in one line."""

import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from lora_assets.errors import LoraAssetsError
from lora_assets.serving.replica import Replica
from lora_assets.serving.replica_folder import shared_folder
from lora_assets.serving.vllm_plugin.guard import ADMIN_KEY, Guard, Keys
from tests.support.doubles.broken_vllm import BASE, BrokenVllm, listening
from tests.support.stack import free_port

KEY = "sk-very-secret"
HTML = "<html>\n<body>Welcome</body>\n</html>"
Connect = Callable[..., Replica]


@pytest.fixture
def connect(tmp_path: Path) -> Iterator[Connect]:
    """A client of a server, which is up for the test."""
    with ExitStack() as stack:

        def to(server: BrokenVllm, **changes: Any) -> Replica:
            settings = {"api_key": KEY, "timeout": 30.0, **changes}
            url = stack.enter_context(listening(server.app()))
            return Replica(url, folder=shared_folder(str(tmp_path)), **settings)

        yield to


def failure(act: Callable[[], Any], url: str) -> str:
    """What a person gets to read: one line that names the server, and never the key."""
    with pytest.raises(LoraAssetsError) as raised:
        act()
    error = raised.value
    assert url in error.cause
    assert "\n" not in str(error)
    assert error.remedy.endswith(".")
    assert KEY not in "".join(traceback.format_exception(error))
    return str(error)


def reads(replica: Replica) -> Mapping[str, Callable[[], Any]]:
    return {
        "/v1/models": replica.listing,
        "/v1/completions": lambda: replica.complete(BASE, "a", 1),
        "/metrics": replica.limits,
        "/v1/load_lora_adapter": lambda: replica.load("m-v1", "/a/1"),
        "/v1/unload_lora_adapter": lambda: replica.unload("there"),
    }


def test_a_good_server_loads_lists_answers_and_unloads(connect: Connect) -> None:
    server = BrokenVllm(api_key=KEY)
    replica = connect(server)
    replica.load("m-v1", "/a/1")
    replica.load("m-v1", "/a/1")
    assert replica.loaded() == {"m-v1": "/a/1"}
    assert server.asked.count("/v1/load_lora_adapter") == 1
    assert replica.complete("m-v1", "a", 3).text == "/a/1"
    replica.unload("m-v1")
    replica.unload("m-v1")
    assert replica.loaded() == server.adapters == {}


@pytest.mark.parametrize(
    ("server", "limits"),
    [
        (BrokenVllm(base="org/base", max_lora=4), (("org/base", "org/base"), True, 4)),
        (BrokenVllm(runtime_loading=False), ((BASE, BASE), False, 8)),
        (BrokenVllm(max_lora=None), ((BASE, BASE), True, None)),
    ],
)
def test_what_it_can_take_is_read_from_the_server(
    connect: Connect, server: BrokenVllm, limits: tuple[tuple[str, str], bool, int | None]
) -> None:
    assert tuple(dict(connect(server).limits()).values()) == limits
    assert server.adapters == {}


@pytest.mark.parametrize("key", ["", "sk-wrong"])
def test_a_wrong_key_names_the_variable_to_set_and_changes_nothing(
    connect: Connect, key: str
) -> None:
    server = BrokenVllm(api_key=KEY, adapters={"there": "/a/0"})
    replica = connect(server, api_key=key)
    for act in reads(replica).values():
        assert "VLLM_API_KEY" in failure(act, replica.url)
    assert server.adapters == {"there": "/a/0"}


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:{free}", "http://", "nonsense", "http://127.0.0.1:99999"]
)
def test_a_wrong_url_is_named_with_the_option_to_correct(tmp_path: Path, url: str) -> None:
    url = url.format(free=free_port())
    replica = Replica(url, KEY, 5.0, shared_folder(str(tmp_path)))
    for act in reads(replica).values():
        assert "--vllm-url" in failure(act, url)


@pytest.mark.parametrize("path", reads(Replica("", "", 1.0, shared_folder("/"))))
def test_a_server_that_hangs_or_breaks_is_named_and_keeps_what_it_had(
    connect: Connect, path: str
) -> None:
    server = BrokenVllm(adapters={"there": "/a/0"})
    replica = connect(server)
    for fault, words in ((500, "500"), (503, "503"), ("hang", "unreachable")):
        server.faults[path] = fault
        asked = replace(replica, timeout=0.25) if fault == "hang" else replica
        assert words in failure(reads(asked)[path], replica.url)
        assert server.adapters == {"there": "/a/0"}


LIMIT = "vllm:lora_requests_info{} 1.0\n"
NOT_ANSWERS = [
    *product(
        ("/v1/models", "/v1/completions"),
        (HTML, "", "null", '{"data": []}', '{"data": [{"id": "x"}]}', "\x00"),
    ),
    ("/v1/completions", '{"choices": []}'),
    *product(("/metrics",), (HTML, "{}", "\x00", LIMIT.format(""))),
    *product(("/metrics",), map(LIMIT.format, ('{max_lora="many"}', '{other="8"}'))),
]


@pytest.mark.parametrize(("path", "answer"), NOT_ANSWERS)
def test_an_answer_that_is_not_vllms_is_named(connect: Connect, path: str, answer: str) -> None:
    server = BrokenVllm(faults={path: answer})
    replica = connect(server)
    failure(reads(replica)[path], replica.url)
    assert server.adapters == {}


@pytest.mark.parametrize(
    ("page", "said"), [(HTML, "Welcome"), (f"Bad header: {KEY}", "Bad header")]
)
def test_an_error_page_is_shown_in_one_line_without_the_key(
    connect: Connect, page: str, said: str
) -> None:
    replica = connect(BrokenVllm(faults={"/v1/models": 502}, error_text=page))
    assert said in failure(replica.listing, replica.url)


@pytest.mark.parametrize(
    ("server", "said"),
    [
        (BrokenVllm(faults={"/v1/load_lora_adapter": "Success"}), "does not list it"),
        (BrokenVllm(adapters={"m-v1": "/a/other"}), "already serves /a/other as m-v1"),
        (BrokenVllm(runtime_loading=False), "with 404"),
    ],
)
def test_a_load_that_gives_another_adapter_or_none_is_refused_and_changes_nothing(
    connect: Connect, server: BrokenVllm, said: str
) -> None:
    replica, before = connect(server), dict(server.adapters)
    assert said in failure(lambda: replica.load("m-v1", "/a/1"), replica.url)
    assert server.adapters == before


@pytest.mark.parametrize("name", ["", "..", "../m", "a/b", "a b", "-a", "a\n"])
def test_what_is_no_plain_name_never_reaches_the_server(connect: Connect, name: str) -> None:
    server = BrokenVllm()
    with pytest.raises(LoraAssetsError, match="can't name"):
        connect(server).load(name, "/a/1")
    assert server.adapters == {}


@pytest.mark.parametrize("key", [f"{KEY}\n", f"{KEY} ü", f"{KEY}\0"])
def test_a_key_that_no_header_can_hold_is_refused_without_showing_it(
    connect: Connect, key: str
) -> None:
    replica = connect(BrokenVllm(), api_key=key)
    failure(replica.listing, replica.url)


def test_the_key_is_sent_and_never_shown(connect: Connect) -> None:
    replica = connect(BrokenVllm(api_key=KEY))
    assert replica.loaded() == {}
    assert KEY not in f"{replica!r} {replica}"


def test_a_replica_in_a_pod_is_called_by_its_pod_and_node(connect: Connect) -> None:
    replica = connect(BrokenVllm(), pod="vllm-0 on gpu-7")
    assert replica.served().replica == replica.name == "vllm-0 on gpu-7"
    broken = connect(BrokenVllm(faults={"/v1/models": 500}), pod="vllm-0 on gpu-7")
    told = failure(broken.listing, broken.url)
    assert told.startswith(f"vLLM in vllm-0 on gpu-7 at {broken.url}")


def test_adapters_are_loaded_with_the_admin_key_and_everything_else_with_the_clients(
    tmp_path: Path,
) -> None:
    guarded = Guard(BrokenVllm(api_key=KEY).app(), Keys([KEY], "admin-key"))
    with listening(guarded) as url:
        client = Replica(url, KEY, 30, shared_folder(str(tmp_path)))
        assert "403: This takes the admin key" in failure(lambda: client.load("m-v1", "/a/1"), url)
        wrong = replace(client, admin_key="wrong")
        assert f"Set {ADMIN_KEY}" in failure(lambda: wrong.load("m-v1", "/a/1"), url)
        admin = replace(client, admin_key="admin-key")
        admin.load("m-v1", "/a/1")
        assert client.loaded() == {"m-v1": "/a/1"}
        admin.unload("m-v1")
        assert client.loaded() == {}
