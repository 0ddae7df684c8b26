import json
import re
import select
import tracemalloc
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from kubernetes.stream import ws_client
from safetensors.numpy import save_file

from lora_assets.errors import LoraAssetsError
from lora_assets.records.served import AdapterShape
from lora_assets.serving import adapter_files, pod_exec
from lora_assets.serving.pod_exec import pod_folder
from lora_assets.serving.replica_folder import ReplicaFolder
from lora_assets.serving.vllm_plugin.adapters_folder import digest_folder
from tests.support.doubles.kubernetes_api import KubernetesApi, Pod

pytestmark = pytest.mark.integration

ADAPTERS = "/mnt/adapters"
CONFIG = {"r": 8, "base_model_name_or_path": "base", "target_modules": ["q_proj"]}
Q0 = "base_model.model.model.layers.0.self_attn.q_proj.lora_"
V4, V5 = "v4.channel.k8s.io", "v5.channel.k8s.io"


def make_adapter(folder: Path, seed: int, values: int = 100_000) -> tuple[Path, str]:
    folder.mkdir()
    (folder / adapter_files.CONFIG).write_text(json.dumps(CONFIG))
    half = np.random.default_rng(seed).standard_normal((8, values // 16), dtype=np.float32)
    save_file(
        {f"{Q0}A.weight": half, f"{Q0}B.weight": half.reshape(-1, 8)},
        folder / adapter_files.WEIGHTS,
    )
    return folder, digest_folder(folder)


def folder_of(pod: str = "vllm-0", container: str | None = None) -> ReplicaFolder:
    return pod_folder(ADAPTERS, "models", pod, container)


@dataclass(frozen=True)
class Site:
    """A pod that is reached through the API: its adapters folder, from here and as it has it."""

    api: KubernetesApi
    pod: Pod
    folder: ReplicaFolder
    there: Path

    def visible(self) -> list[str]:
        return sorted(path.name for path in self.there.iterdir() if path.name != ".lock")


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    pod = Pod("vllm-0", tmp_path / "pod")
    pod.folder.mkdir()
    api = KubernetesApi(pods=[pod])
    with api.serving(tmp_path) as kubeconfig:
        monkeypatch.setenv("KUBECONFIG", str(kubeconfig))
        yield Site(api, pod, folder_of(), pod.folder / ADAPTERS[1:])


@pytest.fixture
def adapter(tmp_path: Path) -> tuple[Path, str]:
    return make_adapter(tmp_path / "adapter", 0)


@pytest.mark.parametrize("protocols", [(V4,), (V5, V4)])
def test_an_adapter_arrives_under_its_digest_in_either_protocol(
    site: Site, adapter: tuple[Path, str], protocols: tuple[str, ...]
) -> None:
    site.api.protocols = protocols
    source, digest = adapter
    site.folder.place(source, digest)
    assert site.visible() == [digest]
    assert digest_folder(site.there / digest) == digest
    site.folder.verify(digest)
    nothing_else: dict[str, object] = {"names": {}, "slots": {}, "foreign": {}}
    assert site.folder.contents() == {"digests": {digest: digest}, **nothing_else}


def test_an_adapter_that_is_there_is_not_sent_again(site: Site, adapter: tuple[Path, str]) -> None:
    site.folder.place(*adapter)
    sent = site.api.stdin_bytes
    assert sent > 400_000
    site.folder.place(*adapter)
    assert site.api.stdin_bytes == sent


@pytest.mark.parametrize("offset", [1_550, 200_000])  # In each file.
def test_bytes_that_change_on_the_way_are_refused_and_nothing_is_left(
    site: Site, adapter: tuple[Path, str], offset: int
) -> None:
    site.api.faults.flip_at = offset
    with pytest.raises(LoraAssetsError, match=r"/mnt/adapters in pod models/vllm-0: "):
        site.folder.place(*adapter)
    assert site.visible() == []


@pytest.mark.parametrize("reset", [False, True])
def test_a_stream_that_is_refused_while_it_is_sent_says_why(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reset: bool
) -> None:
    site.api.faults.flip_at = 0  # The first file's name, so that the rest is never read.
    written = ws_client.WSClient.write_stdin

    def write_and_lose(client: Any, data: bytes) -> None:
        """Send, and find the connection reset once the answer is on its way."""
        written(client, data)
        select.select([client.sock.sock], [], [], 30)
        raise ConnectionResetError

    if reset:
        monkeypatch.setattr(ws_client.WSClient, "write_stdin", write_and_lose)
    source, digest = make_adapter(tmp_path / "large", 1, values=8 << 20)
    with pytest.raises(LoraAssetsError, match=r"vllm-0.*stream"):
        site.folder.place(source, digest)
    assert site.visible() == []


@pytest.mark.parametrize("protocols", [(V4,), (V5, V4)])
def test_a_connection_that_breaks_off_leaves_nothing_and_names_the_pod(
    site: Site, adapter: tuple[Path, str], protocols: tuple[str, ...]
) -> None:
    site.api.protocols = protocols
    site.api.faults.break_after = 200_000
    with pytest.raises(LoraAssetsError, match=r"pod models/vllm-0 broke off"):
        site.folder.place(*adapter)
    site.api.wait_for_commands()
    assert site.visible() == []
    site.api.faults.break_after = None
    site.folder.place(*adapter)
    assert site.visible() == [adapter[1]]


def test_a_source_that_vanishes_while_it_is_sent_is_named_and_leaves_nothing(
    site: Site, adapter: tuple[Path, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    source, digest = adapter
    checked = adapter_files.verify(source, digest)

    def verify_and_lose(folder: Path, digest: str) -> AdapterShape:
        (folder / adapter_files.WEIGHTS).unlink()
        return checked

    monkeypatch.setattr(adapter_files, "verify", verify_and_lose)
    with pytest.raises(LoraAssetsError, match=re.escape(f"Can't read adapter {source}")):
        site.folder.place(source, digest)
    site.api.wait_for_commands()
    assert site.visible() == []


def test_a_link_or_another_file_in_the_source_is_refused_before_anything_is_asked(
    site: Site, adapter: tuple[Path, str], tmp_path: Path
) -> None:
    source, digest = adapter
    (source / "adapter_model.bin").write_bytes(b"\x80\x04.")
    with pytest.raises(LoraAssetsError, match=r"adapter_model\.bin"):
        site.folder.place(source, digest)
    (source / "adapter_model.bin").unlink()
    (source / adapter_files.CONFIG).rename(tmp_path / "config.json")
    (source / adapter_files.CONFIG).symlink_to(tmp_path / "config.json")
    with pytest.raises(LoraAssetsError, match=r"adapter_config\.json"):
        site.folder.place(source, digest)
    assert site.api.requests == []


def test_a_large_adapter_is_copied_in_little_memory(site: Site, tmp_path: Path) -> None:
    size = 64 << 20
    source, digest = make_adapter(tmp_path / "large", 1, values=size // 4)
    tracemalloc.start()
    try:
        site.folder.place(source, digest)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    print(f"peak: {peak / 2**20:.1f} MiB")
    assert site.visible() == [digest]
    assert peak < size / 4  # The client and the double together.


def test_a_missing_right_is_said_in_one_line_without_the_token(site: Site) -> None:
    site.api.faults.forbidden = True
    with pytest.raises(
        LoraAssetsError, match=r'vllm-0" is forbidden\. .*get and create of'
    ) as caught:
        site.folder.contents()
    assert "\n" not in str(caught.value)
    assert "the-token-of-the-double" not in str(caught.value)


def test_a_pod_a_container_or_a_python_that_is_not_there_is_named(site: Site) -> None:
    with pytest.raises(LoraAssetsError, match=r'"vllm-9" not found.*Look for the replicas'):
        folder_of("vllm-9").contents()
    with pytest.raises(LoraAssetsError, match=r"sidecar is not valid for pod .*VLLM_CONTAINER"):
        folder_of(container="sidecar").contents()
    site.pod.containers = ("vllm", "proxy")
    with pytest.raises(LoraAssetsError, match=r"choose one of: \[vllm proxy\]\. Correct VLLM_CON"):
        folder_of().contents()
    assert folder_of(container="vllm").contents()["digests"] == {}
    site.pod.programs = ()
    with pytest.raises(LoraAssetsError, match=r'vllm-0 failed .*"python3": executable file not'):
        folder_of(container="vllm").contents()


def test_a_folder_that_cannot_be_written_is_named(site: Site) -> None:
    (site.pod.folder / "mnt").write_text("a file, where the volume should be")
    with pytest.raises(LoraAssetsError, match=r"vllm-0.*Not a directory") as caught:
        site.folder.set_name("v1", "a" * 64)
    assert "\n" not in str(caught.value)


def test_a_command_that_neither_reads_nor_ends_is_given_up(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pod_exec, "EXEC_TIMEOUT_S", 1.5)
    site.api.faults.hang = "contents"
    with pytest.raises(LoraAssetsError, match=r"vllm-0 did not end within 1\.5 s"):
        site.folder.contents()
    site.api.faults.hang = "receive"
    with pytest.raises(LoraAssetsError, match=r"vllm-0 did not end within 1\.5 s"):
        site.folder.place(*make_adapter(tmp_path / "large", 1, values=8 << 20))


def test_a_command_that_prints_without_end_fills_no_memory(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pod_exec, "_MOST_OUTPUT", 1 << 20)
    site.api.faults.noise = b"noise\n" * 1000
    assert site.folder.contents()["digests"] == {}
    site.api.faults.noise = b"noise\n" * (1 << 18)
    with pytest.raises(LoraAssetsError, match=r"vllm-0 printed more than 1 MiB.*Check what pyth"):
        site.folder.contents()


@pytest.mark.parametrize("content", [None, "", "{", "a: [b"])
def test_without_a_usable_kubeconfig_the_remedy_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str | None
) -> None:
    if content is not None:
        (tmp_path / "config").write_text(content)
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "config"))
    with pytest.raises(LoraAssetsError, match=r"no way to a Kubernetes cluster.*KUBECONFIG"):
        folder_of().contents()


@pytest.mark.parametrize(
    ("path", "pod", "container"),
    [("adapters", "vllm-0", None), (ADAPTERS, "..", None), (ADAPTERS, "vllm-0", "a/b")],
)
def test_a_name_that_could_lead_elsewhere_is_no_pod(
    path: str, pod: str, container: str | None
) -> None:
    with pytest.raises(LoraAssetsError, match="is no pod with an absolute path"):
        pod_folder(path, "models", pod, container)


def test_two_folders_of_one_pod_are_equal_and_hash_alike() -> None:
    assert {folder_of(): 1}[folder_of()] == 1
