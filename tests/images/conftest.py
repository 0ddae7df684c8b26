"""The images, the cluster around them, and a Dagster whose code location is a container."""

import os
import sys
from collections.abc import Iterator, Mapping
from functools import partial

import pytest

import lora_assets
from lora_assets.embedded.server.options import PACKAGED_BASE_MODEL
from tests.support.cluster import Cluster, cluster
from tests.support.dagster_services import Part, is_listening
from tests.support.images import Image
from tests.support.stack import free_port

__all__ = ["cluster"]

PACKAGE = "/opt/lora-assets/lib/python3.11/site-packages/lora_assets"


@pytest.fixture(scope="session")
def deployment() -> Image:
    return Image(f"vllm-deployment-tools:{os.environ['VERSION']}")


@pytest.fixture(scope="session")
def training() -> Image:
    return Image(f"vllm-training-tools:{os.environ['VERSION']}")


@pytest.fixture(scope="session")
def trial() -> Image:
    return Image(f"lora-assets-trial:{os.environ['VERSION']}")


@pytest.fixture(scope="session")
def options(cluster: Cluster) -> Mapping[str, Mapping[str, str]]:
    """What a container is given of the cluster; its folders of its own are the image's."""
    own = ("LORA_ASSETS_HOME", "DAGSTER_HOME", "LORA_ASSETS_POLICY")
    given = {name: value for name, value in cluster.environment.items() if name not in own}
    base_model = PACKAGED_BASE_MODEL.relative_to(lora_assets.__path__[0])
    adapters = cluster.environment["ADAPTERS_DIR"]
    return {
        "environment": {**given, "BASE_MODEL": f"{PACKAGE}/{base_model}"},
        # The server reads the folder by the path that it is told: it is the same for both.
        "mounts": {adapters: adapters},
    }


@pytest.fixture(scope="session")
def dagster_url(
    deployment: Image, cluster: Cluster, options: Mapping[str, Mapping[str, str]]
) -> Iterator[str]:
    """Dagster's webserver, over a code location in a container of the deployment image."""
    home = cluster.folder / "dagster"
    port, code_port = free_port(), free_port()
    code = f"dagster api grpc -m lora_assets.definitions --host 127.0.0.1 --port {code_port}"
    workspace = home / "workspace.yaml"
    workspace.write_text(f"load_from: [{{grpc_server: {{host: 127.0.0.1, port: {code_port}}}}}]")
    served = f"-m dagster_webserver --host 127.0.0.1 --port {port} -w".split()
    command, log = [sys.executable, *served, workspace], home / "webserver.log"
    web = Part("Dagster", port, command, log, "/server_info", {"DAGSTER_HOME": str(home)})
    listens = partial(is_listening, code_port)
    with deployment.serving(code.split(), listens, **options), web.running():
        yield web.url
