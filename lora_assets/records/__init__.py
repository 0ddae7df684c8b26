"""Frozen, typed records: what the platform knows, without Dagster, network or files."""

from pydantic import BaseModel, ConfigDict


class Record(BaseModel):
    """A frozen value that survives JSON unchanged, NaN and infinity included."""

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="constants")
