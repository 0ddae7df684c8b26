"""report: one page that needs no other file, with what the one who approves asks for."""

import json
import re
from collections.abc import Mapping
from pathlib import Path

from lora_assets.assets.eval_tables import log_grades
from lora_assets.assets.perf_tables import STORED_SAMPLES
from lora_assets.assets.registered import RECORD
from lora_assets.gates.paired import paired_evidence
from lora_assets.lifecycle import GATES
from lora_assets.records.grades import Answer, Grade, Letter, Side, Slice
from lora_assets.records.load import LoadSamples, RequestSample
from lora_assets.records.training import Adapter
from lora_assets.records.verdict import Check
from lora_assets.stack_resources import Resources
from tests.support.commands import Run
from tests.support.records import differing, model_version, passed_verdict
from tests.support.rows import make_row
from tests.support.stack import trained

SAMPLE = RequestSample(started=0, latency=0.5, ttft=0.1, output_tokens=3, error=None)


def leave_training(resources: Resources, folder: Path, data_version: str, loss: float) -> Adapter:
    """What a training leaves in MLflow, with its quality gate's verdict."""
    adapter = trained(resources, folder, data_version)
    tracking = resources.registry.tracking
    run = tracking.reopen(adapter.mlflow_run_id)
    run.record(adapter, RECORD)
    run.parameters({"lora_config": "standard", "learning_rate": 0.003, "lora_r": 8})
    run.tags({"data.version": data_version})
    check = Check.at_most("eval_loss", loss, 1.0)
    known = {"checks": (check,), "digest": adapter.digest}
    verdict = passed_verdict("quality_gate", model_version(), None, **known)
    tracking.store_verdict(adapter.mlflow_run_id, verdict, resources.registry.model_name)
    return adapter


def test_the_page_has_gates_examples_latencies_and_lineage_and_is_kept_in_mlflow(
    run: Run, environment: Mapping[str, str], resources: Resources,
    adapter_folders: tuple[Path, ...], tmp_path: Path,
) -> None:  # fmt: skip
    adapter = leave_training(resources, adapter_folders[0], "1", loss=0.1)
    registry = resources.registry
    version = registry.register(adapter)
    registry.set_alias("perf-passed", version)
    with resources.tracking.run("evaluation", "eval", "eval", {}) as evaluation:
        row = make_row(question="What does <b> do?", reference_answer="Does b.")
        said: Mapping[Side, str] = {"candidate": "It does b.", "live": "It sleeps."}
        letters: Mapping[Side, Letter] = {"candidate": "A", "live": "C"}
        answers = {side: [Answer(row=0, text=said[side], latency=0.1)] for side in said}
        grades = [Grade(row=0, side=s, letter=letters[s], reason="") for s in said]
        none, lost = differing(1, 0, 0), differing(70, 3, 5)
        log_grades(
            evaluation, [row], answers, grades, {},
            [Slice(name="question_type=factual", a=lost, c=none, refusals=none)],
        )  # fmt: skip
    with resources.tracking.run("performance", "perf", "perf", {}) as load:
        load.metrics({"candidate.latency_p95": 0.5, "baseline.latency_p95": 0.75})
        load.record(LoadSamples(candidate=(SAMPLE,), live=(SAMPLE,)), STORED_SAMPLES)
    paired = (paired_evidence("a_rate", differing(80, 4, 6), 0.03, 0.95),)
    for gate, evidence, of_rows in (("eval_gate", evaluation, paired), ("perf_gate", load, ())):
        known = {"evidence_run_id": evidence.run_id, "paired": of_rows}
        registry.store_verdict(version, passed_verdict(gate, version, None, **known))
    file = tmp_path / "report.html"
    ended, printed = run(environment, "report", "--data-version", "1", "--output", str(file))
    assert ended == 0, ended
    page = file.read_text()
    words = ("quality_gate", "eval_gate", "perf_gate", "It does b.", "It sleeps.", "perf-passed")
    assert [word for word in (*words, adapter.digest, "latency_p95 (s)", "0.75") if
            word not in page] == []  # fmt: skip
    assert "What does &lt;b&gt; do?" in page
    interval = f"<td>{paired[0].lower:+.4f} to {paired[0].upper:+.4f}</td><td>0.0300</td>"
    assert f"<td>a_rate</td><td>-0.0250</td>{interval}<td>share</td><td>80</td><td>10</td>" in page
    assert "<td>question_type=factual</td><td>70</td><td>+3 -5</td><td>+0 -0</td>" in page
    command = "lora-assets train --data-version 1 --lora-config standard --learning-rate 0.003"
    assert f"<code>{command}</code>" in page
    assert re.findall(r'(?:src|href)="(.{0,15})', page) == ["data:image/png;"]
    kept = registry.tracking.download(adapter.mlflow_run_id, "report.html", tmp_path / "kept")
    assert kept.read_text() == page
    assert str(file) in printed


def test_what_the_quality_gate_stopped_has_a_page_too_with_what_to_do(
    run: Run, environment: Mapping[str, str], resources: Resources,
    adapter_folders: tuple[Path, ...], tmp_path: Path,
) -> None:  # fmt: skip
    leave_training(resources, adapter_folders[0], "7", loss=2.0)
    output = ("--output", str(tmp_path / "report.html"), "--json")
    _, printed = run(environment, "report", "--data-version", "7", *output)
    page = Path(json.loads(printed)["file"]).read_text()
    assert "No model version: the quality gate did not let it pass." in page
    assert GATES["quality_gate"].remedy in page
    ended, _ = run(environment, "report", "--data-version", "8")
    assert str(ended).startswith("error: No gate has judged an adapter of data version 8. ")
    assert resources.registry.tracking.newest_trained("7", "model-b") is None
    ended, _ = run(environment, "report", "--data-version", "a'b")
    assert str(ended).startswith("error: \"a'b\" can't be the name")
