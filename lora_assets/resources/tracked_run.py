"""What an MLflow run is given: parameters, numbers, files, and the data that it read."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from time import time
from typing import TYPE_CHECKING, Any

from lora_assets.records import Record
from lora_assets.records.dataset import Row, SplitName, TrainingData

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from mlflow import MlflowClient

_DATASET_DIGEST_LENGTH = 36


@dataclass(frozen=True)
class TrackedRun:
    """One open MLflow run."""

    run_id: str
    client: "MlflowClient"

    def parameters(self, values: Mapping[str, Any]) -> None:
        """Log parameters; logging the same value again is fine, another value is an error."""
        from mlflow.entities import Param

        params = [Param(name, str(value)) for name, value in values.items()]
        self.client.log_batch(self.run_id, params=params)

    def metrics(self, values: Mapping[str, float], step: int = 0) -> None:
        """Log numbers, now, at `step`."""
        from mlflow.entities import Metric

        now = int(time() * 1000)
        metrics = [Metric(name, value, now, step) for name, value in values.items()]
        self.client.log_batch(self.run_id, metrics=metrics)

    def tags(self, values: Mapping[str, str]) -> None:
        """Set tags."""
        for name, value in values.items():
            self.client.set_tag(self.run_id, name, value)

    def figure(self, figure: "Figure", name: str) -> None:
        """Store a figure as `name`.png."""
        self.client.log_figure(self.run_id, figure, f"{name}.png")

    def table(self, rows: list[Mapping[str, Any]], name: str) -> None:
        """Store rows as a table that MLflow's UI shows, in the place of an earlier one."""
        columns = {key: [row[key] for row in rows] for key in rows[0]} if rows else {}
        self.client.log_table(self.run_id, columns, f"{name}.json")
        # MLflow adds them to what an attempt that was killed left.
        table = {"columns": [*columns], "data": [[*row.values()] for row in rows]}
        self.client.log_text(self.run_id, json.dumps(table), f"{name}.json")

    def record(self, record: Record, name: str) -> None:
        """Store a record as `name`.json."""
        self.client.log_text(self.run_id, record.model_dump_json(indent=1), f"{name}.json")

    def folder(self, folder: Path, name: str) -> None:
        """Store a folder's files under the artifact path `name`."""
        self.client.log_artifacts(self.run_id, str(folder), name)

    def dataset(self, data: TrainingData, split: SplitName, context: str) -> None:
        """Log a split as an input: name, content digest, source and schema."""
        from mlflow.entities import Dataset, DatasetInput, InputTag

        columns = [
            {"type": "string", "name": name} for name in Row.model_fields if name != "metadata"
        ]
        dataset = Dataset(
            name=f"{split}-v{data.data_version}",
            digest=data.digest[:_DATASET_DIGEST_LENGTH],
            source_type="s3" if data.source.startswith("s3://") else "local",
            source=json.dumps({"uri": f"{data.source}/{split}.jsonl"}),
            schema=json.dumps({"mlflow_colspec": columns}),
            profile=json.dumps(data.splits[split].model_dump()),
        )
        tags = [InputTag("mlflow.data.context", context)]
        self.client.log_inputs(self.run_id, [DatasetInput(dataset, tags)])
