import json
import math
import re
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from torch.distributed import DistBackendError
from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel, MistralForCausalLM

from lora_assets.errors import LoraAssetsError
from lora_assets.records.dataset import Row
from lora_assets.records.training import (
    LORA_PROFILES,
    Listeners,
    LossPoint,
    Profile,
    TrainingMetrics,
    TrainingParameters,
    TrainingProgress,
)
from lora_assets.serving.adapter_files import CONFIG, WEIGHTS, inspect
from lora_assets.serving.base_shapes import base_modules
from lora_assets.serving.vllm_plugin.adapters_folder import digest_folder
from lora_assets.training import adapter_trainer
from lora_assets.training.adapter_trainer import AdapterTrainer, answer_losses, summed_loss
from lora_assets.training.qlora import load_tokenizer, require_architecture
from lora_assets.training.rows import EncodedRow, encode
from lora_assets.training.train import train
from tests.support.tiny_models import save_tiny

SHORT = {"num_epochs": 2, "batch_size": 4, "gradient_accumulation_steps": 2, "evaluations": 3}
QUICK = TrainingParameters(learning_rate=0.01, max_seq_length=256, **SHORT)
UPDATES = 6
"""24 rows, twice, in batches of 4, two to an update."""


class Killed(Exception):
    """Stands for the process's end."""


class Run:
    """A training run in a folder of its own, and what its callbacks heard."""

    def __init__(self, folder: Path, base_model: Path, rows: list[Row]) -> None:
        self.work, self.output = folder / "work", folder / "adapter"
        self.base_model, self.rows = base_model, rows
        self.losses: list[LossPoint] = []
        self.progress: list[tuple[int, int]] = []
        self.notes: list[str] = []

    def __call__(
        self, parameters: TrainingParameters = QUICK, kill_at: int | None = None
    ) -> TrainingMetrics:
        self.losses, self.progress = [], []

        def on_progress(done: TrainingProgress) -> None:
            self.progress.append((done.step, done.steps))
            if done.step == kill_at:
                raise Killed

        rows = self.rows[:24], self.rows[24:]
        job = partial(train, *rows, self.base_model, "tiny", parameters, self.work, self.output)
        return job(Listeners(self.losses.append, on_progress, self.notes.append))

    def checkpoints(self) -> list[str]:
        return sorted(path.name for path in self.work.iterdir() if path.is_dir())


@pytest.fixture
def run(tmp_path: Path, tiny_model: Path, rows: list[Row]) -> Run:
    return Run(tmp_path, tiny_model, rows)


@pytest.fixture
def another_run(tmp_path: Path, tiny_model: Path, rows: list[Row]) -> Run:
    return Run(tmp_path / "another", tiny_model, rows)


def test_a_run_leaves_an_adapter_that_names_its_base_model_and_no_checkpoints(run: Run) -> None:
    metrics = run()
    assert sorted(path.name for path in run.output.iterdir()) == [CONFIG, WEIGHTS]
    assert inspect(run.output).base_model == "tiny"
    assert str(run.base_model.parent) not in (run.output / CONFIG).read_text()
    assert list(run.work.iterdir()) == []
    assert metrics.steps == UPDATES
    assert metrics.rows_left_out == {"train": (), "val": ()}
    assert metrics.split_rows.keys() == metrics.row_lengths.keys() == {"train", "val"}
    assert metrics.tokens_per_second > 0


def test_losses_and_progress_are_reported_as_they_come_and_nothing_is_printed(
    run: Run, capfd: pytest.CaptureFixture[str]
) -> None:
    metrics = run()
    assert tuple(run.losses) == metrics.curve
    assert [p.step for p in run.losses if p.name == "eval_loss"] == [2, 4, 6]
    assert [p.step for p in run.losses if p.name == "train_loss"] == [1, 2, 3, 4, 5, 6]
    assert run.progress == [(step, UPDATES) for step in range(UPDATES + 1)]
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("quantization", ["nf4", "none"])
def test_the_same_run_gives_the_same_bytes(run: Run, another_run: Run, quantization: str) -> None:
    parameters = QUICK.model_copy(update={"quantization": quantization})
    run(parameters)
    another_run(parameters)
    assert digest_folder(run.output) == digest_folder(another_run.output)


def test_a_killed_run_goes_on_from_its_last_checkpoint_and_ends_the_same(
    run: Run, another_run: Run
) -> None:
    uninterrupted = run()
    with pytest.raises(Killed):
        another_run(kill_at=5)
    assert not another_run.output.exists()
    resumed = another_run()
    assert another_run.progress[0] == (4, UPDATES)
    assert resumed.curve == uninterrupted.curve
    assert digest_folder(another_run.output) == digest_folder(run.output)


@pytest.mark.parametrize("missing", ["checkpoint-4/optimizer.pt", "checkpoint-4.sha256"])
def test_a_checkpoint_that_is_not_whole_and_sealed_does_not_count(run: Run, missing: str) -> None:
    with pytest.raises(Killed):
        run(kill_at=5)
    (run.work / missing).unlink()
    run()
    assert run.progress[0][0] < 4


def test_a_run_that_could_not_publish_only_publishes_when_run_again(run: Run) -> None:
    run.output = run.work / "file" / "adapter"
    run.work.mkdir()
    run.output.parent.write_text("in the way")
    with pytest.raises(OSError, match="file"):
        run()
    run.output.parent.unlink()
    metrics = run()
    assert run.progress == [(UPDATES, UPDATES)]
    assert run.losses == []
    assert len(metrics.curve) == UPDATES + QUICK.evaluations
    inspect(run.output)


def test_the_reported_loss_is_that_of_the_published_adapter_over_all_answer_tokens(
    run: Run,
) -> None:
    absurd = {"learning_rate": 0.1, "warmup_ratio": 0.0, "lora_config": "aggressive"}
    metrics = run(QUICK.model_copy(update={**absurd, "quantization": "none", "evaluations": 6}))
    evaluations = {p.step: p.value for p in metrics.curve if p.name == "eval_loss"}
    assert metrics.best_step == min(evaluations, key=lambda step: evaluations[step]) != UPDATES
    tokenizer = load_tokenizer(run.base_model)
    base = AutoModelForCausalLM.from_pretrained(run.base_model)
    model = PeftModel.from_pretrained(base, run.output)
    val = [encode(row, tokenizer) for row in run.rows[24:]]
    answers = sum(row.answer_length for row in val)
    expected = sum(answer_losses(model, [row], 1) for row in val) / answers
    assert metrics.final_eval_loss == pytest.approx(expected, rel=1e-5)
    assert metrics.final_perplexity == pytest.approx(math.exp(expected), rel=1e-4)


@pytest.mark.parametrize("profile", LORA_PROFILES)
def test_the_adapter_has_the_shape_of_its_profile(run: Run, profile: Profile) -> None:
    run(QUICK.model_copy(update={"lora_config": profile, "num_epochs": 1, "evaluations": 1}))
    config = json.loads((run.output / CONFIG).read_text())
    shape = LORA_PROFILES[profile]
    assert (config["r"], config["lora_alpha"]) == (shape.rank, shape.alpha)
    assert config["lora_dropout"] == shape.dropout
    assert config["target_modules"] == sorted(shape.target_modules)


def test_out_of_memory_in_an_update_or_an_evaluation_ends_no_run(
    run: Run, another_run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = run()
    held: dict[bool, int] = {True: 300, False: 150}
    allocation = RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate`")
    cuda = torch.AcceleratorError("CUDA error: out of memory\nCompile with TORCH_USE_CUDA_DSA")
    told = iter((torch.OutOfMemoryError(), cuda, allocation))

    def short_of_memory(model: Any, part: Sequence[EncodedRow]) -> torch.Tensor:
        if sum(len(row.tokens) for row in part) > held[model.training]:
            raise next(told)
        return summed_loss(model, part)

    monkeypatch.setattr(adapter_trainer, "summed_loss", short_of_memory)
    metrics = another_run()
    assert another_run.notes[1:] == [
        "out of memory: going on with 512 tokens a pass",
        "out of memory: going on with 256 tokens a pass",
        "out of memory: going on with 128 tokens a pass",
    ]
    assert metrics.steps == whole.steps == UPDATES
    assert metrics.curve[0].value == pytest.approx(whole.curve[0].value, rel=1e-5)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (torch.AcceleratorError("CUDA error: illegal access\nAsk."), "illegal access). Run this"),
        (DistBackendError("NCCL error:\nCuda failure 2 'out of memory'"), "memory'). Stop what"),
    ],
)
def test_what_else_a_gpu_raises_ends_the_run_in_a_line_with_a_remedy(
    run: Run, monkeypatch: pytest.MonkeyPatch, error: RuntimeError, said: str
) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(AdapterTrainer, "_over_all", fail)
    with pytest.raises(LoraAssetsError, match=re.escape(said)):
        run()


def test_an_adapter_that_is_there_already_is_replaced(run: Run) -> None:
    run()
    first = digest_folder(run.output)
    run(QUICK.model_copy(update={"seed": 7}))
    assert digest_folder(run.output) != first
    assert [path.name for path in run.output.parent.iterdir() if path.name.startswith(".")] == []


def test_a_training_loss_that_is_not_finite_ends_the_run_at_its_step(
    run: Run, make_model: Callable[[Any], Path]
) -> None:
    def spoil(model: MistralForCausalLM) -> None:
        model.model.norm.weight.data[0] = torch.inf

    run.base_model = make_model(spoil)
    with pytest.raises(LoraAssetsError, match="training loss is nan at step 1"):
        run()
    assert not run.output.exists()


def test_an_eval_loss_that_is_not_finite_ends_the_run_at_its_step(
    run: Run, make_model: Callable[[Any], Path], tiny_model: Path
) -> None:
    train_tokens, val_tokens = (
        {token for row in part for token in encode(row, load_tokenizer(tiny_model)).tokens}
        for part in (run.rows[:15], run.rows[25:])
    )
    only_val = next(iter(val_tokens - train_tokens))

    def spoil(model: MistralForCausalLM) -> None:
        model.model.embed_tokens.weight.data[only_val] = torch.nan

    run.base_model = make_model(spoil)
    run.rows = run.rows[:15] + run.rows[:9] + run.rows[25:]
    with pytest.raises(LoraAssetsError, match="evaluation loss is nan at step 2"):
        run()
    assert not run.output.exists()
    assert run.checkpoints() == []


def test_more_tokens_than_the_base_model_has_positions_are_refused(run: Run) -> None:
    with pytest.raises(LoraAssetsError, match="257 is more than the 256 positions"):
        run(QUICK.model_copy(update={"max_seq_length": 257}))


def test_a_base_model_without_the_projections_is_refused(run: Run, tmp_path: Path) -> None:
    folder = tmp_path / "gpt2"
    GPT2LMHeadModel(GPT2Config(n_embd=32, n_layer=1, n_head=1)).save_pretrained(folder)
    load_tokenizer(run.base_model).save_pretrained(folder)
    run.base_model = folder
    with pytest.raises(LoraAssetsError, match="has no q_proj, k_proj, v_proj, o_proj"):
        run()


@pytest.mark.parametrize("kind", ["llama", "qwen2"])
def test_other_architectures_are_trained_too(run: Run, tmp_path: Path, kind: str) -> None:
    run.base_model = save_tiny(tmp_path / kind, kind)
    assert run().final_eval_loss is not None
    assert set(inspect(run.output).modules) <= set(base_modules(str(run.base_model)) or ())


def test_an_architecture_that_is_not_supported_is_refused_by_name(tmp_path: Path) -> None:
    require_architecture(save_tiny(tmp_path / "llama", "llama"))
    with pytest.raises(LoraAssetsError, match="is a qwen3 model, which is not supported"):
        require_architecture(save_tiny(tmp_path / "qwen3", "qwen3"))


def test_a_missing_base_model_is_refused(run: Run, tmp_path: Path) -> None:
    run.base_model = tmp_path / "nowhere"
    with pytest.raises(LoraAssetsError, match="There is no base model folder"):
        run()


def test_a_truncated_base_model_is_refused(run: Run, make_model: Callable[[Any], Path]) -> None:
    run.base_model = make_model(lambda model: None)
    weights = run.base_model / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    with pytest.raises(LoraAssetsError, match="can't be loaded"):
        run()
