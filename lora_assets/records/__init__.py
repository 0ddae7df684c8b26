"""Frozen, typed records: what the platform knows, without Dagster, network or files."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]


class Record(BaseModel):
    """A frozen value that survives JSON unchanged, NaN and infinity included."""

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="constants")
