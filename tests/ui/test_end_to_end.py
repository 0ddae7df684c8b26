"""What a person does and sees in Dagster's UI, in the real one."""

import re
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Page, expect

from lora_assets.assets.eval_grades import EvalConfig, EvalGateConfig
from lora_assets.lifecycle import STAGES
from lora_assets.settings import read_settings
from lora_assets.stack_resources import make_resources
from tests.support import browser
from tests.support.dagster_services import LOCATION
from tests.support.promotions import promote, stage
from tests.support.ui_state import BROKEN

pytestmark = pytest.mark.e2e

LATE = "7"
"""A data version that is live until a rollback."""


def test_a_version_that_a_gate_stopped_colours_what_it_stopped_and_nothing_beyond(
    page: Page,
) -> None:
    browser.graph(page)
    red = re.compile("--color-accent-red")
    for asset in ("adapter", "gate_result"):
        expect(browser.node(page, asset)).to_have_attribute("style", red)
    for asset in STAGES.keys() - {"adapter", "gate_result"}:
        expect(browser.node(page, asset)).not_to_have_attribute("style", red)


def test_the_first_page_has_the_runs_of_the_command_line(page: Page) -> None:
    page.goto("/overview/timeline")
    for job in ("lifecycle", "train", "deploy", "evaluate"):
        expect(page.get_by_text(job, exact=True).first).to_be_visible()


def test_the_launchpad_shows_every_parameter_with_its_default(page: Page) -> None:
    page.goto(f"/locations/{LOCATION}/jobs/evaluate/playground")
    shown = page.locator(".CodeMirror").first
    for name, field in (EvalConfig.model_fields | EvalGateConfig.model_fields).items():
        if field.default is not None:
            expect(shown).to_contain_text(f"{name}: ")


def test_rollback_is_a_button_that_needs_no_partition(
    page: Page, environment: Mapping[str, str], adapter_folders: tuple[Path, ...]
) -> None:
    browser.roll_back(page, "has no version to go back to")
    # The verdicts of `stage` are the specification's.
    resources = make_resources(read_settings({**environment, "LORA_ASSETS_POLICY": ""}))
    fleet, before = resources.fleet, resources.registry.aliases()["live"].digest

    def live() -> set[str | None]:
        return {*fleet.discover().serving(fleet.live_slot).values()}

    after = stage(resources, adapter_folders[0], LATE).digest
    promote(resources, LATE)
    assert live() == {after}
    browser.roll_back(page, re.compile(r"rollback from version \d+ .* to version 1 .*: done$"))
    assert live() == {before}
    shown = browser.events(page, "live_deployment", "1")
    expect(shown).to_contain_text(re.compile("summary.*rollback from version"))
    browser.roll_back(page, "nothing to roll back: version 1 is live")
    assert live() == {before}


def test_the_adapters_page_has_its_curve_its_parameters_and_its_gate(page: Page) -> None:
    shown = browser.events(page, "adapter", "2")
    expect(shown).to_contain_text("learning_rate")
    expect(shown).to_contain_text("/#/experiments/")
    expect(browser.picture(page, "learning curve")).to_be_visible()
    numbers = browser.gate(page, "adapter", "quality_gate", "2")
    expect(numbers).to_contain_text("eval_loss")
    expect(numbers).to_contain_text("<= 100")
    expect(numbers).to_contain_text("+")


def test_the_pages_of_a_candidate_say_which_version_it_is_and_where_it_is_loaded(
    page: Page,
) -> None:
    shown = browser.events(page, "gate_result", "2")
    expect(shown).to_contain_text("version 2 is candidate")
    expect(shown).to_contain_text("/#/models/mistral-7b-lora/versions/2")
    shown = browser.events(page, "staged_deployment", "2")
    expect(shown).to_contain_text("clients reach it as aws-rag-qa-candidate")
    replicas = shown.locator("table").filter(has_text="aws-rag-qa-candidate")
    expect(replicas.locator("tbody tr")).to_have_count(1)


def test_mlflows_pages_have_the_gates_numbers_and_a_link_to_the_run(
    page: Page, environment: Mapping[str, str], mlflow: str
) -> None:
    resources = make_resources(read_settings({**environment, "MLFLOW_UI_URL": mlflow}))
    version = resources.registry.resolve("version:1")
    # A link to a run that is MLflow's, not a generative application's.
    page.goto(resources.tracking.page(version.run_id))
    gate = page.get_by_role("row").filter(has_text="quality_gate").filter(has_text="perplexity")
    expect(gate).to_contain_text("passed")
    expect(gate).to_contain_text("<= 100")
    expect(page.get_by_text("Evaluation runs")).to_have_count(0)
    of_training = page.get_by_role("link", name="Dagster run").get_attribute("href")
    page.goto(resources.registry.page(version))
    for name, number in (("eval_gate", "a_rate"), ("perf_gate", "p95_ttft")):
        gate = page.get_by_role("row").filter(has_text=name).filter(has_text=number)
        expect(gate.first).to_contain_text("passed")
    assert of_training is not None
    page.goto(urlsplit(of_training).path)
    expect(page.get_by_text("adapter_quality_gate").first).to_be_visible()


def test_grades_and_examples_of_both_sides_stand_side_by_side(page: Page) -> None:
    shown = browser.events(page, "eval_grades", "2")
    scores = shown.locator("table").filter(has_text="refusal rate")
    assert scores.locator("thead").inner_text().split() == ["measure", "candidate", "live"]
    examples = shown.locator("table").filter(has_text="candidate is")
    # Question, reference and both answers.
    expect(examples.locator("tbody tr")).to_have_count(4 * 10)
    expect(browser.gate(page, "eval_grades", "eval_gate", "2")).to_contain_text("a_rate vs live")


def test_the_perf_gate_draws_latencies_against_its_limits(page: Page) -> None:
    numbers = browser.gate(page, "perf_metrics", "perf_gate", "1")
    for name in ("p95_latency", "p95_ttft", "throughput", "success_rate"):
        expect(numbers).to_contain_text(name)
    expect(browser.picture(page, "latency")).to_be_visible()


def test_the_live_page_says_which_replica_serves_what_and_that_it_is_fresh(page: Page) -> None:
    shown = browser.events(page, "live_deployment", "1")
    replicas = shown.locator("table").filter(has_text="aws-rag-qa-live")
    expect(replicas.locator("tbody tr")).to_have_count(1)
    expect(shown).to_contain_text("/#/models/mistral-7b-lora/versions/1")
    page.goto("/assets/live_deployment")
    expect(page.get_by_text("Fails if more than 14 days")).to_be_visible()
    expect(page.get_by_text("Passing").first).to_be_visible(timeout=browser.LAUNCHED)


def test_a_partition_is_materialised_from_its_page_and_keeps_the_reason(page: Page) -> None:
    browser.launch(page, "training_data", ["3"], "the data team asked")
    run = browser.run_for(page, "the data team asked")
    expect(run).to_contain_text("Success", timeout=browser.LAUNCHED)
    expect(browser.events(page, "training_data", "3")).to_contain_text("the data team asked")
    verdict = browser.gate(page, "training_data", "data_is_sound", "3")
    expect(verdict).to_contain_text("duplicate rows")


def test_a_backfill_goes_on_past_a_version_that_fails(page: Page) -> None:
    browser.launch(page, "training_data", ["4", BROKEN], "two new data versions")
    shown = browser.newest_backfill(page)
    expect(shown).to_contain_text("100% completed", timeout=browser.LAUNCHED)
    targeted, in_progress, succeeded, failed = 2, 0, 1, 1
    assert re.search(
        rf"100% completed\s+{targeted}\s+{in_progress}\s+{succeeded}\s+{failed}\b",
        shown.inner_text(),
    )
    expect(browser.events(page, "training_data", "4")).to_contain_text("two new data versions")
