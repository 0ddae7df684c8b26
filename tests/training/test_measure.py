"""The loss of an adapter from elsewhere is the one that its training would have measured."""

import json
from functools import partial
from pathlib import Path

import pytest
from peft import LoraConfig

from lora_assets.errors import LoraAssetsError
from lora_assets.records.dataset import Row
from lora_assets.records.training import Listeners, TrainingParameters
from lora_assets.serving.adapter_files import CONFIG
from lora_assets.training.measure import measure
from lora_assets.training.train import train
from tests.support.random_adapters import save_adapter


def unexpected(note: str) -> None:
    raise AssertionError(note)


@pytest.mark.parametrize("quantization", ["none", "nf4"])
@pytest.mark.parametrize("method", ["lora", "rslora"])
def test_a_trained_adapter_is_measured_as_its_training_measured_it_and_as_it_is_served(
    tmp_path: Path, tiny_model: Path, rows: list[Row], quantization: str, method: str
) -> None:
    chosen = {"quantization": quantization, "lora_method": method}
    parameters = TrainingParameters(learning_rate=0.01, max_seq_length=256, **chosen)
    adapter = tmp_path / "adapter"
    job = partial(train, rows[:24], rows[24:], tiny_model, "tiny", parameters, tmp_path / "work")
    trained = job(adapter, Listeners(lambda point: None, lambda done: None, lambda note: None))
    assert json.loads((adapter / CONFIG).read_text())["use_rslora"] == (method == "rslora")
    losses = measure(rows[24:], tiny_model, adapter, parameters, unexpected)
    assert losses.final_eval_loss == pytest.approx(trained.final_eval_loss, rel=1e-5)
    assert losses.final_perplexity == pytest.approx(trained.final_perplexity, rel=1e-5)
    assert (losses.rows_left_out, losses.given) == ({"val": ()}, False)


def test_an_adapter_of_other_shapes_is_refused_before_it_is_measured(
    tmp_path: Path, tiny_model: Path, rows: list[Row]
) -> None:
    config = LoraConfig(target_modules=["q_proj"], base_model_name_or_path="tiny")
    folder = save_adapter(tmp_path / "adapter", config, seed=1)
    with pytest.raises(LoraAssetsError, match=r"q_proj of \(256, 256\), which is \(64, 64\) in"):
        measure(rows[24:], tiny_model, folder, TrainingParameters(max_seq_length=256), unexpected)
