"""The name that Dagster gives the code location."""

from lora_assets.local.code_location import LOCATION
from tests.support.manifests import REPOSITORY


def test_the_code_location_has_the_name_that_make_ui_gives_it() -> None:
    assert f"python_module: {LOCATION}" in (REPOSITORY / "workspace.yaml").read_text()
