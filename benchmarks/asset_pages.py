"""Seconds until Dagster's pages show, over a thousand data versions with their histories.

    python -m benchmarks.asset_pages [--versions 1000]

Debian's Chromium on the real UI, over the state of benchmarks/sensor_tick.py: once with Dagster's
storage in SQLite, as on one machine, once in PostgreSQL, as in a cluster. Each page is opened anew;
the first one, which loads the UI itself and the code location, does not count.
"""

import argparse
import json
import re
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Page, expect

from benchmarks.sensor_tick import fill
from lora_assets.definitions import make_definitions
from lora_assets.local.instance import open_instance
from lora_assets.settings import read_settings
from lora_assets.stack_resources import make_resources
from tests.support import browser
from tests.support.cluster_parts import postgresql
from tests.support.dagster_services import serving_dagster
from tests.support.stack import free_port, stack_environment

LIMIT = 5.0
"""What a person still waits for."""


def partitions(page: Page, versions: int) -> None:
    """All data versions of an asset, and how far each got."""
    page.goto("/assets/adapter?view=partitions")
    expect(
        page.get_by_text(re.compile(rf"Materialized \(({versions}|{versions:,})\)"))
    ).to_be_visible()


def partition(page: Page) -> None:
    """One data version of an asset."""
    page.goto("/assets/adapter?view=partitions&partition=7")
    expect(page.get_by_text("Materialized").last).to_be_visible()


def gate(page: Page) -> None:
    """What a gate said of one data version."""
    browser.gate(page, "eval_grades", "eval_gate", "7")
    expect(page.get_by_text("Target materialization")).to_be_visible()


def measure(environment: Mapping[str, str], versions: int) -> None:
    """Fill the stack's storages, and time each page of the UI over them."""
    pages: Mapping[str, Callable[[Page], object]] = {
        "the graph": browser.graph,
        "an asset's partitions": lambda page: partitions(page, versions),
        "one partition": partition,
        "a gate's verdict": gate,
    }
    settings = read_settings(environment)
    with open_instance(settings.dagster_home, managed=settings.manages_dagster_home) as instance:
        definitions = make_definitions(settings)
        fill(make_resources(settings), definitions, instance, settings.home, versions)
    dagster = serving_dagster(settings.dagster_home, environment)
    with dagster as ui, browser.open_page(ui.url) as page:
        browser.graph(page)
        for name, show in pages.items():
            began = time.perf_counter()
            show(page)
            seconds = time.perf_counter() - began
            print(f"{name:<24} {seconds:6.2f} s (at most {LIMIT:.0f})")


@contextmanager
def in_postgresql(home: Path) -> Iterator[Mapping[str, str]]:
    """The environment of a Dagster home whose storage is a database server."""
    with postgresql() as server:
        url = f"postgresql+psycopg2://dagster@127.0.0.1:{server.port}/postgres"
        dagster_home = home / "in-postgresql"
        dagster_home.mkdir()
        storage = {"storage": {"postgres": {"postgres_url": url}}}
        (dagster_home / "dagster.yaml").write_text(json.dumps(storage))
        yield {"DAGSTER_HOME": str(dagster_home)}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--versions", type=int, default=1000)
    versions = parser.parse_args().versions
    with tempfile.TemporaryDirectory() as home:
        print("SQLite")
        measure(stack_environment(Path(home), free_port()), versions)
    with tempfile.TemporaryDirectory() as home, in_postgresql(Path(home)) as storage:
        print("PostgreSQL")
        measure({**stack_environment(Path(home), free_port()), **storage}, versions)


if __name__ == "__main__":
    main()
