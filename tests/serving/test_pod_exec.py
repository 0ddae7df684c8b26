import json
import re
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
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
V4, V5 = "v4.channel.k8s.io", "v5.channel.k8s.io"


@pytest.fixture
def pod(tmp_path: Path) -> Pod:
    (tmp_path / "pod").mkdir()
    return Pod("vllm-0", tmp_path / "pod")


@pytest.fixture
def api(pod: Pod, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[KubernetesApi]:
    api = KubernetesApi(pods=[pod])
    with api.serving(tmp_path) as kubeconfig:
        monkeypatch.setenv("KUBECONFIG", str(kubeconfig))
        yield api


@pytest.fixture
def folder(api: KubernetesApi) -> ReplicaFolder:
    return pod_folder(ADAPTERS, "models", "vllm-0", None)


@pytest.fixture
def there(pod: Pod) -> Path:
    """The adapters folder as the replica has it."""
    return pod.folder / ADAPTERS[1:]


def make_adapter(folder: Path, seed: int, values: int = 100_000) -> tuple[Path, str]:
    folder.mkdir()
    (folder / adapter_files.CONFIG).write_text(json.dumps(CONFIG))
    weights = np.random.default_rng(seed).standard_normal(values, dtype=np.float32)
    save_file({"lora_A": weights}, folder / adapter_files.WEIGHTS)
    return folder, digest_folder(folder)


@pytest.fixture
def adapter(tmp_path: Path) -> tuple[Path, str]:
    return make_adapter(tmp_path / "adapter", 0)


def visible(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir() if p.name != ".lock")


def flip_last_byte(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)


@pytest.mark.parametrize("protocols", [(V4,), (V5, V4)])
def test_an_adapter_arrives_under_its_digest_in_either_protocol(
    api: KubernetesApi,
    folder: ReplicaFolder,
    there: Path,
    adapter: tuple[Path, str],
    protocols: tuple[str, ...],
) -> None:
    api.protocols = protocols
    source, digest = adapter
    folder.place(source, digest)
    assert visible(there) == [digest]
    assert digest_folder(there / digest) == digest
    folder.verify(digest)
    assert folder.contents() == {"digests": {digest: digest}, "names": {}, "slots": {}}


def test_an_adapter_that_is_there_is_not_sent_again(
    api: KubernetesApi, folder: ReplicaFolder, adapter: tuple[Path, str]
) -> None:
    folder.place(*adapter)
    sent = api.stdin_bytes
    assert sent > 400_000
    folder.place(*adapter)
    assert api.stdin_bytes == sent


@pytest.mark.parametrize("offset", [1_550, 200_000])  # In each file.
def test_bytes_that_change_on_the_way_are_refused_and_nothing_is_left(
    api: KubernetesApi, folder: ReplicaFolder, there: Path, adapter: tuple[Path, str], offset: int
) -> None:
    api.faults.flip_at = offset
    with pytest.raises(LoraAssetsError, match=r"/mnt/adapters in pod models/vllm-0: "):
        folder.place(*adapter)
    assert visible(there) == []


def test_a_stream_that_is_refused_while_it_is_sent_says_why(
    api: KubernetesApi, folder: ReplicaFolder, there: Path, tmp_path: Path
) -> None:
    api.faults.flip_at = 0  # The first file's name, so that the rest is never read.
    source, digest = make_adapter(tmp_path / "large", 1, values=8 << 20)
    with pytest.raises(LoraAssetsError, match=r"vllm-0.*stream"):
        folder.place(source, digest)
    assert visible(there) == []


@pytest.mark.parametrize("protocols", [(V4,), (V5, V4)])
def test_a_connection_that_breaks_off_leaves_nothing_and_names_the_pod(
    api: KubernetesApi,
    folder: ReplicaFolder,
    there: Path,
    adapter: tuple[Path, str],
    protocols: tuple[str, ...],
) -> None:
    api.protocols = protocols
    api.faults.break_after = 200_000
    with pytest.raises(LoraAssetsError, match=r"pod models/vllm-0 broke off"):
        folder.place(*adapter)
    api.wait_for_commands()
    assert visible(there) == []
    api.faults.break_after = None
    folder.place(*adapter)
    assert visible(there) == [adapter[1]]


def test_a_source_that_vanishes_while_it_is_sent_is_named_and_leaves_nothing(
    api: KubernetesApi,
    folder: ReplicaFolder,
    there: Path,
    adapter: tuple[Path, str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    source, digest = adapter
    checked = adapter_files.verify(source, digest)

    def verify_and_lose(folder: Path, digest: str) -> AdapterShape:
        (folder / adapter_files.WEIGHTS).unlink()
        return checked

    monkeypatch.setattr(adapter_files, "verify", verify_and_lose)
    with pytest.raises(LoraAssetsError, match=re.escape(f"Can't read adapter {source}")):
        folder.place(source, digest)
    api.wait_for_commands()
    assert visible(there) == []


def test_a_byte_that_changed_on_the_replica_is_refused_and_healed(
    folder: ReplicaFolder, there: Path, adapter: tuple[Path, str]
) -> None:
    source, digest = adapter
    folder.place(source, digest)
    flip_last_byte(there / digest / adapter_files.WEIGHTS)
    assert not folder.intact(digest)
    with pytest.raises(LoraAssetsError, match=rf"vllm-0.*{digest[:12]}.*bytes have changed"):
        folder.verify(digest)
    folder.place(source, digest)
    folder.verify(digest)
    assert folder.intact(digest)
    assert visible(there) == [digest]


def test_names_and_slots_lead_to_digests_and_prune_keeps_what_is_served(
    folder: ReplicaFolder, there: Path, tmp_path: Path
) -> None:
    made = [make_adapter(tmp_path / f"adapter-{n}", n, values=10) for n in range(3)]
    digests = [digest for _, digest in made]
    for n, (source, digest) in enumerate(made):
        folder.place(source, digest)
        folder.set_name(f"v{n}", digest)
    folder.set_slot("live", "v0")
    folder.set_slot("live", "v1")
    assert (there / "slots" / "live").resolve().name == digests[1]
    folder.prune([digests[2]])
    found = folder.contents()
    assert set(found["digests"]) == set(digests[1:])
    assert found["names"] == {"v1": digests[1], "v2": digests[2]}
    assert found["slots"] == {"live": "v1"}
    with pytest.raises(LoraAssetsError, match="no adapter v0"):
        folder.set_slot("live", "v0")
    folder.clear_slot("live")
    assert folder.contents()["slots"] == {}


@pytest.mark.parametrize("name", ["../up", "-c", "a b", "$(id)"])
def test_a_name_that_leaves_the_folder_is_refused_there(
    folder: ReplicaFolder, there: Path, adapter: tuple[Path, str], name: str
) -> None:
    folder.place(*adapter)
    with pytest.raises(LoraAssetsError, match=re.escape(repr(name))):
        folder.set_name(name, adapter[1])
    assert visible(there) in ([adapter[1]], [adapter[1], "names"])


def test_a_link_or_another_file_in_the_source_is_refused_before_anything_is_asked(
    api: KubernetesApi, folder: ReplicaFolder, adapter: tuple[Path, str], tmp_path: Path
) -> None:
    source, digest = adapter
    (source / "adapter_model.bin").write_bytes(b"\x80\x04.")
    with pytest.raises(LoraAssetsError, match=r"adapter_model\.bin"):
        folder.place(source, digest)
    (source / "adapter_model.bin").unlink()
    (source / adapter_files.CONFIG).rename(tmp_path / "config.json")
    (source / adapter_files.CONFIG).symlink_to(tmp_path / "config.json")
    with pytest.raises(LoraAssetsError, match=r"adapter_config\.json"):
        folder.place(source, digest)
    assert api.requests == []


def test_a_large_adapter_is_copied_in_little_memory(
    folder: ReplicaFolder, there: Path, tmp_path: Path
) -> None:
    size = 64 << 20
    source = tmp_path / "large"
    source.mkdir()
    (source / adapter_files.CONFIG).write_text(json.dumps(CONFIG))
    entry = {"dtype": "F32", "shape": [size // 4], "data_offsets": [0, size]}
    header = json.dumps({"lora_A": entry}).encode()
    with (source / adapter_files.WEIGHTS).open("wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        file.truncate(8 + len(header) + size)
    digest = digest_folder(source)
    tracemalloc.start()
    try:
        folder.place(source, digest)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    print(f"peak: {peak / 2**20:.1f} MiB")
    assert visible(there) == [digest]
    assert peak < size / 4  # The client and the double together.


def test_a_missing_right_is_said_in_one_line_without_the_token(
    api: KubernetesApi, folder: ReplicaFolder
) -> None:
    api.faults.forbidden = True
    with pytest.raises(LoraAssetsError, match=r'vllm-0" is forbidden.*that right') as caught:
        folder.contents()
    assert "\n" not in str(caught.value)
    assert "the-token-of-the-double" not in str(caught.value)


def test_a_pod_a_container_or_a_python_that_is_not_there_is_named(
    api: KubernetesApi, pod: Pod
) -> None:
    with pytest.raises(LoraAssetsError, match=r'"vllm-9" not found.*Look for the replicas'):
        pod_folder(ADAPTERS, "models", "vllm-9", None).contents()
    with pytest.raises(LoraAssetsError, match="container sidecar is not valid for pod vllm-0"):
        pod_folder(ADAPTERS, "models", "vllm-0", "sidecar").contents()
    assert pod_folder(ADAPTERS, "models", "vllm-0", "vllm").contents()["digests"] == {}
    pod.programs = ()
    with pytest.raises(LoraAssetsError, match=r'vllm-0 failed .*"python3": executable file not'):
        pod_folder(ADAPTERS, "models", "vllm-0", "vllm").contents()


def test_a_folder_that_cannot_be_written_is_named(folder: ReplicaFolder, pod: Pod) -> None:
    (pod.folder / "mnt").write_text("a file, where the volume should be")
    with pytest.raises(LoraAssetsError, match=r"vllm-0.*Not a directory") as caught:
        folder.set_name("v1", "a" * 64)
    assert "\n" not in str(caught.value)


def test_a_command_that_neither_reads_nor_ends_is_given_up(
    api: KubernetesApi, folder: ReplicaFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pod_exec, "EXEC_TIMEOUT_S", 1.5)
    api.faults.hang = "contents"
    with pytest.raises(LoraAssetsError, match=r"vllm-0 did not end within 1\.5 s"):
        folder.contents()
    api.faults.hang = "receive"
    with pytest.raises(LoraAssetsError, match=r"vllm-0 did not end within 1\.5 s"):
        folder.place(*make_adapter(tmp_path / "large", 1, values=8 << 20))


def test_an_api_server_that_is_gone_is_said_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with KubernetesApi().serving(tmp_path) as kubeconfig:
        monkeypatch.setenv("KUBECONFIG", str(kubeconfig))
    with pytest.raises(LoraAssetsError, match="does not answer") as caught:
        pod_folder(ADAPTERS, "models", "vllm-0", None).contents()
    assert "\n" not in str(caught.value)
    assert caplog.messages == []  # Warnings would be printed before that line.


@pytest.mark.parametrize("content", [None, "", "{", "a: [b"])
def test_without_a_usable_kubeconfig_the_remedy_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str | None
) -> None:
    if content is not None:
        (tmp_path / "config").write_text(content)
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "config"))
    with pytest.raises(LoraAssetsError, match=r"no way to a Kubernetes cluster.*KUBECONFIG"):
        pod_folder(ADAPTERS, "models", "vllm-0", None).contents()


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
    one, other = (pod_folder(ADAPTERS, "models", "vllm-0", None) for _ in range(2))
    assert {one: 1}[other] == 1
