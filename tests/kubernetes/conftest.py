"""Fixtures of the tests here."""

from collections.abc import Iterator

import pytest

from tests.support.dagster_services import RUN_RESOURCES
from tests.support.kubernetes_cluster import Cluster, serving_cluster


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """The double with everything on it that has to be there before the first run."""
    with serving_cluster(tmp_path_factory.mktemp("cluster"), RUN_RESOURCES) as cluster:
        yield cluster
