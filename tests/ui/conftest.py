"""One state and one UI for every test here."""

from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from playwright.sync_api import Page

from lora_assets.settings import read_settings
from tests.support.browser import open_page
from tests.support.cluster_parts import mlflow_server
from tests.support.dagster_services import serving_dagster
from tests.support.policies import ANY_ANSWER, ANY_SPEED, ANY_TRAINING, write_policy
from tests.support.stack import free_port, serving, stack_environment
from tests.support.ui_state import fill


@pytest.fixture(scope="session")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mapping[str, str]]:
    """The state that the tests look at, and its server, the embedded one."""
    home = tmp_path_factory.mktemp("ui")
    policy = write_policy(home, ANY_TRAINING, ANY_ANSWER, ANY_SPEED)
    environment = {**stack_environment(home, free_port()), **policy}
    with serving(environment):
        fill(environment)
        yield environment


@pytest.fixture(scope="session")
def mlflow(environment: Mapping[str, str]) -> Iterator[str]:
    """The address of MLflow's UI over the same state."""
    server = mlflow_server(Path(environment["LORA_ASSETS_HOME"]))
    with server.running():
        yield server.url


@pytest.fixture(scope="session")
def page(environment: Mapping[str, str]) -> Iterator[Page]:
    """A browser on the real UI."""
    home = read_settings(environment).dagster_home
    with serving_dagster(home, environment) as ui, open_page(ui.url) as page:
        yield page
