"""Quality gate: did training end with a model that predicts the answers?"""

from pydantic import Field, FiniteFloat

from lora_assets.records import Record, Share
from lora_assets.records.training import Adapter
from lora_assets.records.verdict import Check, Verdict


class QualityThresholds(Record):
    """The specification's limits on the validation split ("Quality Gate"), and one on the data."""

    max_eval_loss: FiniteFloat = Field(
        1.0, ge=0, description="Highest eval loss (nats per answer token)"
    )
    max_perplexity: FiniteFloat = Field(2.0, ge=1, description="Highest perplexity")
    max_left_out: Share = Field(
        0.05, description="Largest share of train or val longer than max-seq-length"
    )


def quality_gate(adapter: Adapter, thresholds: QualityThresholds, decided_at: str) -> Verdict:
    """Hold the adapter's final eval loss and perplexity against their limits.

    So it does the share of each split that was too long to train or to be measured on, where the
    record says how many rows there were.
    """
    metrics = adapter.metrics
    left_out = (
        Check.at_most(
            f"left out of {split}",
            len(metrics.rows_left_out.get(split, ())) / rows,
            thresholds.max_left_out,
        )
        for split, rows in metrics.split_rows.items()
    )
    return Verdict(
        gate="quality_gate",
        **adapter.identity,
        # What the data were allowed, for the policy: their own gate leaves no verdict with them.
        thresholds=thresholds.model_dump()
        | adapter.model_dump(include={"max_leak"}, exclude_none=True),
        checks=(
            Check.at_most("eval_loss", metrics.final_eval_loss, thresholds.max_eval_loss),
            Check.at_most("perplexity", metrics.final_perplexity, thresholds.max_perplexity),
            *left_out,
        ),
        notes=("losses as given, not measured here",) if metrics.given else (),
        evidence_run_id=adapter.mlflow_run_id,
        decided_at=decided_at,
    )
