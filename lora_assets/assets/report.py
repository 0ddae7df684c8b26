"""The report on a data version: one page with all that the one who approves it has to see."""

from collections.abc import Mapping
from importlib.resources import files
from typing import Any

from lora_assets.assets.eval_tables import GRADES, SLICES
from lora_assets.assets.figures import data_url, latency_distribution
from lora_assets.assets.pages import Rows, sides_rows
from lora_assets.assets.perf_tables import STORED_SAMPLES, with_units
from lora_assets.assets.registered import RECORD, REGISTERED
from lora_assets.assets.verdicts import check_rows, evidence_rows, now
from lora_assets.errors import LoraAssetsError
from lora_assets.lifecycle import GATES
from lora_assets.records.load import LoadSamples
from lora_assets.records.model_version import ModelVersion
from lora_assets.records.training import Adapter, TrainingMetrics, TrainingParameters
from lora_assets.records.verdict import GateName, Verdict
from lora_assets.resources.registry import Registry
from lora_assets.resources.tracking import Tracking
from lora_assets.training.curve import learning_curve

ARTIFACT = "report"
SHOWN_EXAMPLES = 30


def make_report(registry: Registry, data_version: str) -> tuple[str, str]:
    """Return the page on the newest adapter of a data version, and the MLflow run of its training.

    Raise LoraAssetsError where nothing was trained on the data version.
    """
    tracking, version = registry.tracking, registry.newest(data_version)
    trained = None if version else tracking.newest_trained(data_version, registry.model_name)
    run_id = version.run_id if version is not None else trained
    if not run_id:
        raise LoraAssetsError(
            f"No gate has judged an adapter of data version {data_version}",
            f"Run 'lora-assets train --data-version {data_version}' first.",
        )
    return report_on(registry, data_version, run_id, version), run_id


def report_on(
    registry: Registry, data_version: str, run_id: str, version: ModelVersion | None
) -> str:
    """Return the page on a training as HTML without links to other files.

    Everything comes from the registry and its runs.
    """
    import jinja2

    tracking = registry.tracking
    parameters, _ = tracking.logged(run_id)
    is_trained_here = "lora_config" in parameters
    adapter = tracking.record(run_id, RECORD if is_trained_here else REGISTERED, Adapter)
    quality = tracking.verdict(run_id, "quality_gate")
    verdicts: dict[GateName, Verdict] = {"quality_gate": quality} if quality else {}
    verdicts |= registry.verdicts(version) if version else {}
    evidence = {gate: verdict.evidence_run_id for gate, verdict in verdicts.items()}
    evaluation, load_test = evidence.get("eval_gate"), evidence.get("perf_gate")
    curve = adapter.metrics.curve if isinstance(adapter.metrics, TrainingMetrics) else ()
    aliases = [alias for alias, holder in registry.aliases().items() if holder == version]
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    template = environment.from_string(files(__package__).joinpath("report.html").read_text())
    return template.render(
        data_version=data_version,
        made_at=now(),
        version=version,
        aliases=aliases,
        verdicts=verdicts,
        check_rows=check_rows,
        evidence_rows=evidence_rows,
        remedies={name: gate.remedy for name, gate in GATES.items()},
        curve=data_url(learning_curve(curve)) if curve else None,
        slices=tracking.table(evaluation, SLICES) if evaluation else [],
        examples=_examples(tracking.table(evaluation, GRADES)) if evaluation else [],
        load=_load(tracking, load_test) if load_test else None,
        lineage={
            "model": f"{registry.model_name} {version.version if version else '(no version)'}",
            "adapter digest": adapter.digest,
            "data digest": adapter.data_digest,
            "data": tracking.data_source(run_id),
            "base model": f"{adapter.base_model} {adapter.base}",
            "MLflow run": tracking.page(run_id),
        },
        parameters=parameters,
        command=_command(data_version, parameters) if is_trained_here else None,
    )


def _examples(lines: Rows) -> Rows:
    """Return rows with both sides' answers and grades, those on which they differ first."""

    def differs(line: Mapping[str, Any]) -> bool:
        return bool(line.get("live_grade")) and line["live_grade"] != line["candidate_grade"]

    # The form of 0.1.0 is a line per row and side.
    known = [line for line in lines if "side" not in line]
    return sorted(known, key=differs, reverse=True)[:SHOWN_EXAMPLES]


def _load(tracking: Tracking, run_id: str) -> Mapping[str, Any]:
    """Return a load test's numbers of both sides, and its picture."""
    _, metrics = tracking.logged(run_id)
    sides = {
        side: {
            name.removeprefix(f"{side}."): f"{value:.4g}"
            for name, value in with_units(metrics).items()
            if name.startswith(f"{side}.")
        }
        for side in ("candidate", "baseline")
    }
    samples = tracking.record(run_id, STORED_SAMPLES, LoadSamples)
    return {
        "rows": sides_rows({side: values for side, values in sides.items() if values}),
        "picture": data_url(latency_distribution(samples, {})),
    }


def _command(data_version: str, parameters: Mapping[str, str]) -> str:
    """Return the command that trains the same again."""
    fields = [name for name in TrainingParameters.model_fields if name in parameters]
    options = [f"--{name.replace('_', '-')} {parameters[name]}" for name in fields]
    return " ".join(["lora-assets train", f"--data-version {data_version}", *options])
