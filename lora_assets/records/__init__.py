"""Frozen, typed records: what the platform knows, without Dagster, network or files."""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
RECORD_FORMAT = 1
"""Of what the registry keeps: it grows when an older reader would take it for something else."""


class Record(BaseModel):
    """A frozen value that survives JSON unchanged, NaN and infinity included."""

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="constants")


class AdapterRecord(Record):
    """A record about one adapter: its digest, and the data version that it was trained on.

    `base` is the identity of the base model that it was trained on: a digest of its files, or the
    hub's commit; empty where an earlier release made the record.
    """

    digest: str
    data_version: str
    data_digest: str
    base: str = ""

    @property
    def identity(self) -> dict[str, Any]:
        """Return these fields, for another record about the same adapter."""
        return {name: getattr(self, name) for name in AdapterRecord.model_fields}

    def is_of_base(self, base: str) -> bool:
        """Return whether this adapter is one of `base`, as far as both are known."""
        return self.base == base or not (self.base and base)


class Measurement(AdapterRecord):
    """A candidate measured in an MLflow run, against the adapter that was live then.

    `live_digest` is None on a first deployment, where nothing is live yet. `vllm_url` is that of
    the fleet; records of earlier releases have none.
    """

    model_version: int
    live_digest: str | None
    mlflow_run_id: str
    vllm_url: str | None = None


def short(digest: str | None) -> str:
    """Return a digest as messages show it; None stands for no adapter, a path for itself."""
    return (digest if "/" in digest else digest[:12]) if digest else "nothing"
