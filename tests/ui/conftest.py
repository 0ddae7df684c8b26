"""One state and one UI for every test here."""

from collections.abc import Iterator

import pytest
from playwright.sync_api import Page

from lora_assets.errors import LoraAssetsError
from tests.support.browser import open_page
from tests.support.dagster_ui import await_ui, dagster_ui
from tests.support.stack import free_port, serving, stack_environment
from tests.support.ui_state import make_data, run_graph


@pytest.fixture(scope="session")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    """A browser on the real UI; the server beside it is the embedded one."""
    environment = stack_environment(tmp_path_factory.mktemp("ui"), free_port())
    make_data(environment)
    with dagster_ui(environment) as ui, serving(environment):
        run_graph(environment)
        await_ui(ui)
        try:
            with open_page(ui.url) as found:
                yield found
        except LoraAssetsError as error:
            pytest.exit(f"error: {error}", returncode=1)
