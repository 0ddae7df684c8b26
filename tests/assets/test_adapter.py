"""A training run as MLflow keeps it, and what becomes of it when it is asked for again."""

import json
import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from urllib.parse import unquote, urlsplit

import dagster as dg
import pytest
from mlflow import MlflowClient, active_run

from lora_assets.assets.adapter import adapter
from lora_assets.assets.graph import data_versions
from lora_assets.assets.pages import rounded
from lora_assets.assets.registered import REGISTERED
from lora_assets.assets.training_data import training_data
from lora_assets.errors import LoraAssetsError
from lora_assets.records.base_model import PROMPTS, Base
from lora_assets.records.dataset import Row, RowMetadata, SplitName
from lora_assets.records.training import Adapter, TrainingMetrics
from lora_assets.resources.fleet import Fleet
from lora_assets.resources.fluent_run import SAMPLING
from lora_assets.resources.trainer import Trainer
from lora_assets.serving.vllm_plugin.adapters_folder import digest_folder
from lora_assets.settings import read_settings
from lora_assets.stack_resources import Resources, make_resources
from lora_assets.training.base_identity import base_identity
from tests.support.commands import spoil
from tests.support.records import trained_adapter

OVERRIDES = {"lora_config": "minimal", "num_epochs": 1, "max_seq_length": 200}
UPDATES = 3
"""19 rows that fit, in batches of 8."""

Train = Callable[..., Adapter]


@pytest.fixture
def resources(tmp_path: Path, empty_mlflow: Path, tiny_model: Path, rows: list[Row]) -> Resources:
    """A registry, and data version 1 in a bucket; its third training row is too long."""
    shutil.copy(empty_mlflow, tmp_path / "mlflow.db")
    environment = {"LORA_ASSETS_HOME": str(tmp_path), "BASE_MODEL": str(tiny_model)}
    environment["VLLM_MAX_MODEL_LEN"] = "512"
    resources = make_resources(read_settings(environment))
    negative = {"metadata": RowMetadata(question_type="negative")}
    long = {"context": f"{rows[2].context} word" * 200}
    long["prompt_inference"] = f"[INST] {long['context']} [/INST]"
    long["prompt_training"] = f"{long['prompt_inference']} {rows[2].answer}"
    changes = {0: negative, 2: long, 20: negative, 25: negative}
    rows = [row.model_copy(update=changes.get(i, {})) for i, row in enumerate(rows)]
    splits: dict[SplitName, list[Row]] = {"train": rows[:20], "val": rows[20:25], "eval": rows[25:]}
    contents = {
        name: "".join(f"{row.model_dump_json()}\n" for row in split).encode()
        for name, split in splits.items()
    }
    resources.data_bucket.add("1", contents)
    return resources


@pytest.fixture
def train(resources: Resources, instance: dg.DagsterInstance) -> Train:
    instance.add_dynamic_partitions(str(data_versions.name), ["1"])

    def materialise(on: Resources = resources, **config: object) -> Adapter:
        ended = dg.materialize(
            [training_data, adapter],
            partition_key="1",
            instance=instance,
            resources=vars(on),
            run_config={"ops": {"adapter": {"config": OVERRIDES | config}}},
        )
        made: Adapter = ended.output_for_node("adapter")
        return made

    return materialise


def artifacts(client: MlflowClient, made: Adapter) -> Path:
    return Path(unquote(urlsplit(client.get_run(made.mlflow_run_id).info.artifact_uri).path))


@pytest.fixture
def client(resources: Resources) -> MlflowClient:
    return MlflowClient(resources.tracking.tracking_uri)


def warnings(instance: dg.DagsterInstance) -> list[str]:
    """What the newest run warned of."""
    (run, *_) = instance.get_runs(limit=1)
    return [
        entry.user_message
        for entry in instance.all_logs(run.run_id)
        if entry.level == logging.WARNING
    ]


def test_mlflow_has_everything_of_a_training_run(
    train: Train, client: MlflowClient, resources: Resources, tiny_model: Path
) -> None:
    made = train()
    run = client.get_run(made.mlflow_run_id)
    assert (run.info.status, run.info.run_name) == ("FINISHED", "data-v1-minimal")
    said = (
        f"base_model={tiny_model.name} lora_config=minimal lora_method=lora lora_r=4 lora_alpha=8 "
        "lora_dropout=0.05 lora_target_modules=q_proj,v_proj learning_rate=0.003 num_epochs=1 "
        "batch_size=8 gradient_accumulation_steps=1 max_seq_length=200 quantization=none "
        "warmup_ratio=0.03 evaluations=2 seed=1"
    )
    assert run.data.params == dict(each.split("=") for each in said.split())

    metrics = made.metrics
    assert isinstance(metrics, TrainingMetrics)
    for name in ("final_eval_loss", "final_perplexity", "tokens_per_second", "steps", "best_step"):
        assert run.data.metrics[name] == getattr(metrics, name) > 0
    for name, count in (("train_loss", UPDATES), ("eval_loss", 2)):
        curve = [(p.step, p.value) for p in metrics.curve if p.name == name]
        logged = client.get_metric_history(run.info.run_id, name)
        assert [(metric.step, metric.value) for metric in logged] == curve
        assert len(curve) == count

    source = resources.data_bucket.source("1")
    assert run.data.tags["data.version"] == "1"
    assert run.data.tags["data.source"] == source
    assert run.data.tags["adapter.digest"] == made.digest
    assert run.data.tags["adapter.base"] == made.base == base_identity(str(tiny_model))
    kept = Base(identity=made.base, answers=metrics.base_answers)
    assert len(kept.answers) == len(PROMPTS)
    assert resources.registry.base(resources.registry.register(made)) == kept
    lineage = {given.tags[0].value: given.dataset for given in run.inputs.dataset_inputs}
    assert {context: dataset.name for context, dataset in lineage.items()} == {
        "training": "train-v1",
        "validation": "val-v1",
    }
    for split, dataset in (("train", lineage["training"]), ("val", lineage["validation"])):
        assert dataset.digest == made.data_digest[:36]
        assert json.loads(dataset.source) == {"uri": f"{source}/{split}.jsonl"}

    assert digest_folder(artifacts(client, made) / "adapter") == made.digest
    assert (artifacts(client, made) / "learning_curve.png").read_bytes().startswith(b"\x89PNG")


def test_the_machine_is_looked_at_during_a_training_and_its_page_tells_of_it(
    train: Train, client: MlflowClient, instance: dg.DagsterInstance,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setenv(SAMPLING, "0.01")
    before = dict(os.environ)
    run = client.get_run(train().mlflow_run_id)
    assert {name: os.environ.get(name) for name in before} == before
    assert not {"MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_ID"} & os.environ.keys() - before.keys()
    assert active_run() is None
    (ours, *_) = instance.get_runs(limit=1)
    assert run.data.tags["dagster_run_id"] == ours.run_id
    made = instance.get_latest_materialization_event(adapter.key)
    shown = made.asset_materialization.metadata["system metrics"].value.records
    rows = {str(row.data["metric"]): row.data for row in shown}
    assert {"cpu utilization percentage", "system memory usage megabytes"} <= rows.keys()
    name = "system/system_memory_usage_megabytes"
    seen = [metric.value for metric in client.get_metric_history(run.info.run_id, name)]
    assert rows["system memory usage megabytes"]["highest"] == rounded(max(seen)) > 0


@pytest.mark.parametrize(
    ("raised", "status"),
    [
        (dg.DagsterExecutionInterruptedError, "KILLED"),
        (KeyboardInterrupt, "KILLED"),
        (ArithmeticError, "FAILED"),
    ],
)
def test_a_training_that_is_killed_goes_on_in_its_mlflow_run_and_one_that_fails_in_another(
    train: Train, client: MlflowClient, resources: Resources, raised: type[BaseException],
    status: str,
) -> None:  # fmt: skip
    class Ending(Trainer):
        def train(self, *_: object, **__: object) -> TrainingMetrics:
            raise raised

    with pytest.raises(raised):
        train(replace(resources, trainer=Ending(**dict(resources.trainer))))
    experiment = client.get_experiment_by_name("vllm-lora-training").experiment_id
    (run,) = client.search_runs([experiment])
    assert run.info.status == status
    assert active_run() is None
    assert (train().mlflow_run_id == run.info.run_id) == (status == "KILLED")
    statuses = [each.info.status for each in client.search_runs([experiment])]
    assert statuses == (["FINISHED"] if status == "KILLED" else ["FINISHED", "FAILED"])


def test_rows_too_long_are_warned_of_by_line_and_what_was_trained_is_found_again(
    train: Train, instance: dg.DagsterInstance
) -> None:
    made = train()
    assert made.metrics.rows_left_out == {"train": (2,), "val": ()}
    assert warnings(instance) == ["train: 1 row(s) longer than 200 tokens left out: lines 3"]
    event = instance.get_latest_materialization_event(adapter.key).asset_materialization
    shown = [row.data for row in event.metadata["row lengths (tokens)"].value.records]
    left_out = {row["split"]: row["too long, left out"] for row in shown}
    assert left_out == {"train": 1, "val": 0}
    assert all(0 < row["median"] <= row["p95"] <= row["longest"] <= 200 for row in shown)
    seen = instance.fetch_observations(dg.AssetKey("training_data"), limit=1)
    (of_data,) = seen.records
    assert of_data.asset_observation.metadata.keys() == {"row lengths (tokens)"}
    assert train() == made
    assert warnings(instance) == []


def test_rows_that_would_not_be_measured_or_served_stop_a_training_before_it_begins(
    train: Train, client: MlflowClient, resources: Resources
) -> None:
    with pytest.raises(LoraAssetsError, match=r"fit: val\.jsonl lines 4-5: longer than 60 tokens"):
        train(max_seq_length=60)
    short = Fleet(**{**dict(resources.fleet), "max_model_len": 60})
    with pytest.raises(LoraAssetsError, match=r"than 60 tokens \(the server's max_model_len\)"):
        train(replace(resources, fleet=short))
    experiments = [each.experiment_id for each in client.search_experiments()]
    assert client.search_runs(experiments) == []


def test_a_fresh_training_trains_anew_and_is_found_from_then_on(
    train: Train, client: MlflowClient
) -> None:
    made = train()
    again = train(fresh=True)
    assert again.mlflow_run_id != made.mlflow_run_id
    assert train(fresh=False) == again
    tags = [client.get_run(each.mlflow_run_id).data.tags for each in (made, again)]
    assert tags[0]["lora_assets.key"] == tags[1]["lora_assets.key"]
    assert train(fresh=True).mlflow_run_id not in (made.mlflow_run_id, again.mlflow_run_id)


def test_what_was_registered_for_other_data_takes_the_place_of_no_training(
    train: Train, resources: Resources
) -> None:
    with resources.tracking.run("registered", "run", "key", {}) as run:
        run.record(trained_adapter(mlflow_run_id=run.run_id), REGISTERED)
    with pytest.raises(LoraAssetsError, match=f"run {run.run_id} is of an adapter on other data"):
        train(registered=run.run_id)


def test_an_experiment_may_be_called_as_people_call_one(train: Train, resources: Resources) -> None:
    made = train(mlflow_experiment="Bär 2. Versuch +x@y")
    assert resources.tracking.holds(made.mlflow_run_id, "adapter", made.digest)
    assert train(mlflow_experiment="Bär 2. Versuch +x@y") == made


def test_an_adapter_is_found_again_for_the_same_bytes_of_its_base_alone(
    train: Train, resources: Resources, tiny_model: Path, tmp_path: Path
) -> None:
    def on(base: Path) -> Resources:
        trainer = Trainer(**{**dict(resources.trainer), "base_model": str(base)})
        return replace(resources, trainer=trainer)

    first, copy = train(), tmp_path / "copy"
    shutil.copytree(tiny_model, copy)
    assert train(on(copy)) == first
    (copy / "config.json").write_text((copy / "config.json").read_text() + "\n")
    assert train(on(copy)).mlflow_run_id != first.mlflow_run_id
    for gone in (copy / "config.json", copy):
        shutil.rmtree(gone) if gone.is_dir() else gone.unlink()
        with pytest.raises(LoraAssetsError, match=f"Base model {copy} has no weights"):
            train(on(copy))


def gc(client: MlflowClient, run_id: str) -> None:
    """Collect a deleted run, as `mlflow gc --run-ids` does."""
    command = [sys.executable, "-m", "mlflow", "gc", "--run-ids", run_id]
    database = ["--backend-store-uri", client.tracking_uri, "--tracking-uri", client.tracking_uri]
    subprocess.run([*command, *database], check=True)


@pytest.mark.parametrize("collected", [False, True], ids=["deleted", "and collected"])
def test_a_training_whose_mlflow_run_was_deleted_is_made_and_registered_again(
    train: Train, client: MlflowClient, resources: Resources, collected: bool, tmp_path: Path
) -> None:
    made = train()
    assert resources.registry.register(made).version == 1
    client.delete_run(made.mlflow_run_id)
    if collected:
        gc(client, made.mlflow_run_id)
    again = train()
    assert (again.digest, again.mlflow_run_id == made.mlflow_run_id) == (made.digest, False)
    version = resources.registry.register(again)
    assert (version.version, version.run_id) == (2, again.mlflow_run_id)
    resources.registry.download(version, tmp_path / "downloaded")
    if collected:
        with pytest.raises(LoraAssetsError, match="deleted in MLflow, train its data version"):
            resources.tracking.verdict(made.mlflow_run_id, "quality_gate")


@pytest.mark.parametrize("damage", [spoil, Path.unlink])
def test_a_damaged_adapter_is_trained_again_and_registered_anew(
    train: Train, client: MlflowClient, resources: Resources, instance: dg.DagsterInstance,
    damage: Callable[[Path], None], tmp_path: Path,
) -> None:  # fmt: skip
    made = train()
    assert resources.registry.register(made).version == 1
    damage(artifacts(client, made) / "adapter" / "adapter_model.safetensors")
    again = train()
    assert "is damaged or lost" in warnings(instance)[0]
    assert again.mlflow_run_id != made.mlflow_run_id
    assert again.digest == made.digest
    assert train() == again
    version = resources.registry.register(again)
    assert version.version == 2
    resources.registry.download(version, tmp_path / "downloaded")
    assert resources.registry.register(again) == version


def test_a_run_whose_record_is_damaged_is_named_and_once_deleted_it_is_trained_again(
    train: Train, client: MlflowClient
) -> None:
    made = train()
    (artifacts(client, made) / "trained.json").write_text("{")
    with pytest.raises(LoraAssetsError, match=f"trained.json of MLflow run {made.mlflow_run_id}"):
        train()
    client.delete_run(made.mlflow_run_id)
    assert train().digest == made.digest
