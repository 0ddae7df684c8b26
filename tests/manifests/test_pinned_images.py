"""The digests of others' images, as a real registry tells them."""

import json
import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path

import pytest
import requests

from tests.support.cluster_parts import debian
from tests.support.dagster_services import Part
from tests.support.manifests import DEPLOY
from tests.support.stack import free_port

pytestmark = pytest.mark.e2e

INDEX = "application/vnd.oci.image.index.v1+json"
NAMED = re.compile(
    r"(?:^FROM|image:(?: &\w+)?) (\S+/\S+?)(?:@sha256:(\w{64}))?(?: AS base)?$", re.M
)


def pinned(deploy: Path) -> Mapping[str, set[str]]:
    """Return the digests that the files have for each image of others; empty for a tag alone."""
    found: dict[str, set[str]] = {}
    for file in sorted(deploy.rglob("*")):
        if file.is_file():
            for image, digest in NAMED.findall(file.read_text()):
                found.setdefault(image, set()).add(digest)
    return found


def test_others_images_get_the_digest_of_the_day_or_none_is_written(tmp_path: Path) -> None:
    deploy = shutil.copytree(DEPLOY, tmp_path / "deploy")
    tags, port = pinned(deploy), free_port()
    assert {"vllm/vllm-openai:v0.32.0", "prom/prometheus:v3.13.2"} < set(tags)
    assert set().union(*tags.values()) == {""}
    (tmp_path / "registry.yml").write_text(
        f"{{version: 0.1, storage: {{filesystem: {{rootdirectory: {tmp_path}/images}}}}, "
        f"http: {{addr: '127.0.0.1:{port}'}}}}"
    )
    mirrors = tmp_path / ".config" / "containers" / "registries.conf"
    mirrors.parent.mkdir(parents=True)
    mirrors.write_text(
        "".join(
            f'[[registry]]\nprefix = "{host}"\nlocation = "127.0.0.1:{port}"\ninsecure = true\n'
            for host in ("docker.io", "ghcr.io", "quay.io")
        )
    )
    environment = {**os.environ, "HOME": str(tmp_path)}

    def pin() -> subprocess.CompletedProcess[str]:
        command = [deploy / "images" / "pin.sh"]
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)

    serve = [debian("docker-registry", "docker-registry"), "serve", tmp_path / "registry.yml"]
    registry = Part("registry", port, serve, tmp_path / "registry.log", "/v2/")
    with registry.running():
        for day in ("Monday", "Tuesday"):
            told = {}
            for image in tags:
                name, _, tag = re.sub(r"^\w+\.io/", "", image).rpartition(":")
                index = {"schemaVersion": 2, "mediaType": INDEX, "manifests": []}
                content = json.dumps({**index, "annotations": {"of": f"{image}, {day}"}}).encode()
                put = f"{registry.url}/v2/{name}/manifests/{tag}"
                requests.put(put, content, headers={"Content-Type": INDEX}).raise_for_status()
                told[image] = {sha256(content).hexdigest()}
            ended = pin()
            assert ended.returncode == 0, ended.stderr
            assert pinned(deploy) == told
    assert pin().returncode != 0
    assert pinned(deploy) == told
