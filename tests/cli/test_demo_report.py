"""The table that the demo ends with."""

import dagster as dg

from lora_assets.cli.demo_report import gate_rows
from lora_assets.records.model_version import ModelVersion
from tests.support.records import model_version

DIGEST = "a" * 64


def version(number: int) -> ModelVersion:
    return model_version(number, str(number), DIGEST)


def evaluation(
    asset: str, gate: str, passed: bool, description: str
) -> tuple[dg.AssetCheckKey, dg.AssetCheckEvaluation]:
    key = dg.AssetKey(asset)
    return dg.AssetCheckKey(key, gate), dg.AssetCheckEvaluation(
        asset_key=key,
        check_name=gate,
        passed=passed,
        description=description,
        metadata={"digest": DIGEST if gate == "quality_gate" else "of the data"},
    )


SOUND = evaluation("training_data", "data_is_sound", True, "rows 300 > 0; negatives 60 > 0")
TRAINED = evaluation("adapter", "quality_gate", True, "eval_loss 0.2 <= 1")


def test_a_data_version_is_named_once_with_its_digest_version_and_aliases() -> None:
    aliases = {"candidate": version(2), "live": version(2), "previous": version(1)}
    first, second = gate_rows("2", version(2), aliases, dict([SOUND, TRAINED]))
    assert first == (
        "2\ndigest aaaaaaaaaaaa\nmodel version 2\naliases candidate, live",
        "data_is_sound",
        "passed",
        "rows 300 > 0\nnegatives 60 > 0",
    )
    assert second == ("", "quality_gate", "passed", "eval_loss 0.2 <= 1")


def test_a_data_version_that_a_gate_stopped_has_no_model_version_and_no_alias() -> None:
    failed = evaluation("adapter", "quality_gate", False, "eval_loss 3.1 <= 1 (failed)")
    (about, *_), (_, gate, outcome, numbers) = gate_rows(
        "3", None, {"live": version(2)}, dict([SOUND, failed])
    )
    assert about == "3\ndigest aaaaaaaaaaaa\nmodel version none\naliases none"
    assert (gate, outcome, numbers) == ("quality_gate", "FAILED", "eval_loss 3.1 <= 1 (failed)")


def test_a_data_version_with_no_verdict_has_no_row() -> None:
    assert gate_rows("4", None, {}, {}) == []
