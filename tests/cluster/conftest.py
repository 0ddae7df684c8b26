"""Commands that run in the cluster's environment."""

import pytest

from lora_assets.resources.object_store import s3_client
from tests.support.cluster import Cluster, cluster
from tests.support.cluster_stages import Run
from tests.support.commands import Ended, command

__all__ = ["cluster"]


@pytest.fixture(autouse=True)
def _cluster_environment(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """For what reads the environment itself, as boto3 does for its keys."""
    for name, value in cluster.environment.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def run(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Run:
    """Run a command in the cluster's environment, with what `changes` in it."""

    def ended(*arguments: str, **changes: str) -> Ended:
        # It stands for a process of its own, which finds its credentials itself.
        s3_client.cache_clear()
        return command(arguments, {**cluster.environment, **changes}, monkeypatch, capfd)

    return ended
