"""Where a gate's page leads: to what it decided on, and to the report for a person."""

import dagster as dg

from lora_assets.assets.eval_tables import GRADES
from lora_assets.assets.report import ARTIFACT, report_on
from lora_assets.errors import LoraAssetsError
from lora_assets.lifecycle import GATES
from lora_assets.records.model_version import ModelVersion
from lora_assets.records.verdict import Verdict
from lora_assets.resources.registry import Registry

_LAST = [*GATES][-1]


def gate_pages(
    registry: Registry, verdict: Verdict, version: ModelVersion | None = None
) -> dict[str, dg.MetadataValue | str]:
    """Return the links of a gate's page; its verdict is stored already.

    Where no other gate follows, since it is the last one or said no, the report is made and kept
    with the training.
    """
    tracking, evidence = registry.tracking, verdict.evidence_run_id or ""
    pages: dict[str, dg.MetadataValue | str] = {
        "data": dg.MetadataValue.asset(dg.AssetKey("training_data")),
        "mlflow run": dg.MetadataValue.url(tracking.page(evidence)),
    }
    if version is not None:
        pages["registry page"] = dg.MetadataValue.url(registry.page(version))
    if verdict.gate == "eval_gate":
        pages["examples"] = dg.MetadataValue.url(tracking.page(evidence, f"{GRADES}.json"))
    if verdict.gate == _LAST or not verdict.passed:
        pages["report"] = _kept(registry, verdict, version, version.run_id if version else evidence)
    return pages


def _kept(
    registry: Registry, verdict: Verdict, version: ModelVersion | None, training: str
) -> dg.MetadataValue | str:
    try:
        page = report_on(registry, verdict.data_version, training, version)
        url = registry.tracking.keep_report(training, page, ARTIFACT)
        if version is not None:
            registry.describe(version)
        return dg.MetadataValue.url(url)
    except LoraAssetsError as error:
        # The gate has decided, and its verdict stands without a page.
        dg.AssetCheckExecutionContext.get().log.warning(f"The report could not be made: {error}")
        return f"not made: {error}"
