from pathlib import Path

from lora_assets.cli.outputs import Outputs


def test_an_output_of_an_earlier_command_is_not_taken_for_this_ones(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "outputs"
    Outputs(folder).write("result", "passed")
    assert (folder / "result").read_text() == "passed"
    (folder / "else").touch()
    Outputs(folder)
    assert [path.name for path in folder.iterdir()] == ["else"]


def test_the_digest_of_the_data_is_not_the_adapters(tmp_path: Path) -> None:
    outputs = Outputs(tmp_path)
    outputs.take("adapter", {"digest": "a" * 64, "steps": "8"})
    outputs.take("gate_result", {"digest": "a" * 64, "model version": "7"})
    outputs.take("training_data", {"digest": "d" * 64})
    found = {path.name: path.read_text() for path in tmp_path.iterdir()}
    assert found == {"digest": "a" * 64, "model-version": "7"}
