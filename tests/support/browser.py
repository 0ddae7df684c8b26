"""Debian's Chromium on Dagster's own UI: what a person clicks, and what a person then sees."""

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from playwright.sync_api import Locator, Page, expect, sync_playwright

from lora_assets.records.run_tags import WHY
from tests.support.cluster_parts import debian
from tests.support.dagster_services import LOCATION

PATIENCE = 120_000
LAUNCHED = 300_000
"""Milliseconds until a page has loaded, and until what a run did is on one: this machine may be
busy."""

GROUPS = ("data", "training", "serving", "evaluation")


@contextmanager
def open_page(url: str) -> Iterator[Page]:
    """A page of the UI that is served at `url`."""
    chromium = debian("chromium", "chromium")
    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=arguments)
        page = browser.new_page(base_url=url, viewport={"width": 1500, "height": 1000})
        page.set_default_timeout(PATIENCE)
        expect.set_options(timeout=PATIENCE)
        yield page
        browser.close()


def launch(page: Page, asset: str, data_versions: Sequence[str], reason: str) -> None:
    """Materialise partitions of an asset from its page: one is a run, more are a backfill."""
    page.goto(f"/assets/{asset}")
    page.get_by_role("button", name="Materialize…").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_text("Select a partition or create one").click()
    names = page.get_by_placeholder("Filter partitions")
    for name in data_versions:
        names.fill(name)
        menu = page.locator("[class*=popover]").filter(has=names).last
        menu.get_by_text(name, exact=True).filter(visible=True).click()
    page.keyboard.press("Escape")
    dialog.get_by_text("Tags", exact=True).click()
    dialog.get_by_role("button", name="Add tags").click()
    page.get_by_placeholder("Tag Key").fill(WHY)
    page.get_by_placeholder("Tag Value").fill(reason)
    page.get_by_role("button", name="Apply").click()
    expect(page.get_by_placeholder("Tag Key")).to_have_count(0)
    button = "Launch 1 run" if len(data_versions) == 1 else "Launch backfill"
    dialog.get_by_role("button", name=button).click()
    expect(dialog).to_have_count(0)


def roll_back(page: Page, outcome: str | re.Pattern[str]) -> None:
    """Press the job `rollback`, and see a message of its run."""
    page.goto(f"/locations/{LOCATION}/jobs/rollback/playground")
    page.get_by_role("button", name="Launch Run").click()
    expect(page.get_by_text(outcome).first).to_be_visible(timeout=LAUNCHED)


def events(page: Page, asset: str, data_version: str) -> Locator:
    """A partition's newest materialisation: its metadata, one row per entry."""
    page.goto(f"/assets/{asset}?view=partitions&partition={data_version}")
    return page.locator("table").filter(has_text="digest").first


def gate(page: Page, asset: str, check: str, data_version: str) -> Locator:
    """A gate's newest verdict on a data version: its numbers as a table."""
    page.goto(f"/assets/{asset}?view=checks&checkDetail={check}")
    # The asset's own tab comes first.
    page.get_by_role("tab", name="Partitions").nth(1).click()
    page.get_by_text(data_version, exact=True).filter(visible=True).last.click()
    return page.locator("table").filter(has_text="must be").last


def picture(page: Page, entry: str) -> Locator:
    """The dialog with the picture behind a metadata entry of the page that is open."""
    row = page.locator("tr").filter(has=page.get_by_text(entry, exact=True))
    row.get_by_text("[Show Markdown]").click()
    dialog = page.get_by_role("dialog")
    image = dialog.get_by_role("img", name="plot")
    expect(image).to_be_visible()
    assert image.evaluate("image => image.complete && image.naturalWidth > 0")
    return dialog


def graph(page: Page) -> Locator:
    """The whole graph, every group opened, its latest events loaded."""
    page.goto("/asset-groups?expanded=" + ",".join(f"global@global:{name}" for name in GROUPS))
    found = page.locator("svg").filter(has_text="live_deployment")
    expect(found).to_be_visible()
    expect(page.get_by_text("Loading...")).to_have_count(0)
    return found


def node(page: Page, asset: str) -> Locator:
    """An asset's box in the graph that is open; its style has the colour."""
    found = page.locator("svg foreignObject").filter(has_text=asset)
    return found.locator("[style*='--minimal-border']")


def run_for(page: Page, reason: str) -> Locator:
    """The row of the run or backfill with this reason, which keeps itself up to date."""
    page.goto("/runs")
    rows = page.locator("div").filter(has=page.get_by_text("View", exact=True))
    return rows.filter(has_text=reason).last


def newest_backfill(page: Page) -> Locator:
    """The page of the newest backfill: what became of each of its assets' partitions."""
    page.goto("/runs?view=backfills")
    page.locator("a[href*='/runs/b/']").first.click()
    return page.locator("body")


def live(page: Page) -> Locator:
    """The page of what is live: its newest promotion, whatever the data version."""
    page.goto("/assets/live_deployment")
    expect(page.get_by_text("Passing").first).to_be_visible(timeout=LAUNCHED)
    return page.locator("table").filter(has_text="replicas").first
