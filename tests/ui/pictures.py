"""The documentation's pictures, of a home that 'lora-assets demo' has filled.

python -m tests.ui.pictures docs/pictures
"""

import os
import sys
from io import BytesIO
from pathlib import Path

from PIL import Image
from playwright.sync_api import Locator, Page, expect

from lora_assets.cli.demo import VERSIONS
from lora_assets.embedded.data_set.versions import contents
from lora_assets.local.instance import add_partitions, open_instance
from lora_assets.settings import read_settings
from lora_assets.stack_resources import make_resources
from tests.support import browser
from tests.support.dagster_services import serving_dagster

MOST_BYTES = 200_000
SENSORS = 3
MORE_VERSIONS = {"4": "iam", "5": "rds", "6": "sagemaker"}
"""Data that came in later, for a backfill to show."""


def main() -> None:
    """Write every picture into the folder that the command line names."""
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    settings = read_settings()
    bucket = make_resources(settings).data_bucket
    for name, service in MORE_VERSIONS.items():
        bucket.add(name, contents([service]))
    add_partitions(open_instance(settings.dagster_home, managed=True), list(MORE_VERSIONS))
    with (
        serving_dagster(settings.dagster_home, os.environ) as ui,
        browser.open_page(ui.url) as page,
    ):
        take_all(page, folder)


def take_all(page: Page, folder: Path) -> None:
    """Each page that the documentation speaks of, cut to what matters."""
    better, spoiled = VERSIONS[1].name, VERSIONS[2].name
    page.set_viewport_size({"width": 1700, "height": 1700})
    shown = browser.gate(page, "adapter", "quality_gate", spoiled)
    expect(shown).to_contain_text("FAILED")
    save(page, folder / "quality-gate.png", until=shown)
    shown = browser.gate(page, "eval_grades", "eval_gate", better)
    save(page, folder / "eval-gate.png", until=shown)
    browser.gate(page, "perf_metrics", "perf_gate", better)
    save(page, folder / "latency.png", only=browser.picture(page, "latency"))
    browser.events(page, "adapter", better)
    save(page, folder / "learning-curve.png", only=browser.picture(page, "learning curve"))
    # The examples are taller than a screen.
    page.set_viewport_size({"width": 1700, "height": 2600})
    shown = browser.events(page, "eval_grades", better)
    save(page, folder / "examples.png", only=shown.locator("tr", has_text="candidate is").first)
    page.set_viewport_size({"width": 1500, "height": 1700})
    browser.live(page)
    save(page, folder / "live-deployment.png", until=page.get_by_text("/#/models/").last)
    browser.launch(page, "training_data", list(MORE_VERSIONS), "three new data versions")
    shown = browser.newest_backfill(page)
    expect(shown).to_contain_text("100% completed", timeout=browser.LAUNCHED)
    save(page, folder / "backfill.png", until=shown.get_by_text("100% completed"))
    expect(browser.run_for(page, "three new data versions")).to_contain_text("Success")
    save(page, folder / "runs.png", until=page.get_by_text("Success").last)
    page.goto("/automation")
    expect(page.get_by_text("Standard sensor")).to_have_count(SENSORS)
    # Of the switches, which come last, that of 'notices' is on from the start.
    expect(page.get_by_role("checkbox", checked=True)).to_have_count(1)
    save(page, folder / "automation.png", until=page.get_by_text("replica_repair", exact=True))
    page.set_viewport_size({"width": 2300, "height": 900})
    save(page, folder / "graph.png", only=browser.graph(page))


def save(page: Page, file: Path, only: Locator | None = None, until: Locator | None = None) -> None:
    """The page as PNG: one element of it, or all from its top to the end of an element."""
    if only is not None:
        png = only.screenshot(animations="disabled")
    else:
        assert until is not None
        expect(until).to_be_visible()
        box = until.bounding_box()
        viewport = page.viewport_size
        assert box is not None
        assert viewport is not None
        height = min(box["y"] + box["height"] + 24, viewport["height"])
        clip = {"x": 0, "y": 0, "width": viewport["width"], "height": height}
        png = page.screenshot(animations="disabled", clip=clip)
    # Few colours are enough for a page, and make a small file.
    Image.open(BytesIO(png)).convert("RGB").quantize(128).save(file, optimize=True)
    size = file.stat().st_size
    assert size <= MOST_BYTES, f"{file} has {size} bytes"
    print(f"{file}: {size // 1000} kB")


if __name__ == "__main__":
    main()
