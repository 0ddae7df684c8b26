"""The registry, on an MLflow that people use by hand as well."""

import json
from pathlib import Path

import pytest
from mlflow import MlflowClient

from lora_assets.errors import LoraAssetsError
from lora_assets.gates.promotion import Case
from lora_assets.records.base_model import Base
from lora_assets.records.verdict import Check
from lora_assets.resources.registry import Registry
from lora_assets.resources.tracking import ML_VIEW, Tracking
from lora_assets.stack_resources import Resources
from tests.support.records import model_version, passed_verdict
from tests.support.stack import trained, with_key


def test_a_version_that_was_registered_by_hand_stands_in_no_others_way(
    resources: Resources, tmp_path: Path, adapter_folders: tuple[Path, ...]
) -> None:
    registry = resources.registry
    client = MlflowClient(registry.tracking_uri)
    client.create_registered_model(registry.model_name)
    client.create_model_version(registry.model_name, source=tmp_path.as_uri())
    version = registry.register(trained(resources, adapter_folders[0], "1"))
    assert version.version == 2
    client.set_registered_model_alias(registry.model_name, "champion", "1")
    registry.set_alias("candidate", version)
    assert registry.aliases() == {"candidate": version}
    client.create_model_version(registry.model_name, source="x", tags={"adapter.digest": "d" * 64})
    assert (registry.numbers(), registry.newest("1")) == ([2], version)
    for number in (1, 3):
        with pytest.raises(LoraAssetsError, match=f"^Version {number} of .*not registered by lora"):
            registry.resolve(f"version:{number}")


def test_a_base_that_is_kept_is_part_of_a_versions_identity_and_garbage_is_named(
    resources: Resources, adapter_folders: tuple[Path, ...]
) -> None:
    registry, before = resources.registry, trained(resources, adapter_folders[0], "1")
    on_a, on_b = (before.model_copy(update={"base": digit * 64}) for digit in "ab")
    versions = [registry.register(each) for each in (on_a, on_b, before, on_a)]
    assert [(each.version, each.base[:1]) for each in versions[:2]] == [(1, "a"), (2, "b")]
    assert versions[3] == versions[0]
    client = MlflowClient(registry.tracking_uri)
    for tag in ("adapter.base", "adapter.base_answers"):
        client.set_model_version_tag(registry.model_name, "1", tag, "junk")
        with pytest.raises(LoraAssetsError, match=f"^The tag '{tag}' of version 1 .* is 'junk'"):
            registry.base(versions[0])
        client.delete_model_version_tag(registry.model_name, "1", tag)
    assert registry.base(versions[0]) == Base()


def test_a_gate_that_could_not_decide_gives_no_alias_and_takes_away_the_earlier_one(
    resources: Resources, adapter_folders: tuple[Path, ...]
) -> None:
    registry = resources.registry
    version = registry.register(trained(resources, adapter_folders[0], "1"))
    passed = passed_verdict("eval_gate", version, None)
    failed = passed.model_copy(update={"checks": (Check.at_least("a_rate", 0, 1),)})
    undecided = failed.model_copy(update={"faults": ("the judge can't be read",)})
    given = []
    for verdict in (failed, undecided, passed, undecided):
        registry.conclude(version, verdict)
        given.append(list(registry.aliases()))
    assert given == [["eval-failed"], [], ["eval-passed"], []]


def test_mlflow_describes_a_version_and_a_run_by_their_gates(
    resources: Resources, adapter_folders: tuple[Path, ...]
) -> None:
    registry = resources.registry
    version = registry.register(trained(resources, adapter_folders[0], "1"))
    for gate in ("quality_gate", "eval_gate"):
        registry.store_verdict(version, passed_verdict(gate, version, None))
    quality = passed_verdict("quality_gate", version, None)
    registry.tracking.store_verdict(version.run_id, quality, registry.model_name)
    client = MlflowClient(registry.tracking_uri)
    row = "| {} | passed | number | 1 | >= 1 |"
    described = client.get_model_version(registry.model_name, "1").description
    assert described is not None
    rows = [row.format("quality_gate"), row.format("eval_gate")]
    assert described.splitlines()[2:-2] == rows
    assert "`lora-assets report --data-version 1` makes it anew" in described
    about = client.get_registered_model(registry.model_name).description
    assert "`lora-assets history` says" in str(about)
    note = client.get_run(version.run_id).data.tags["mlflow.note.content"]
    assert note.splitlines()[2:-2] == rows[:1]
    client.update_model_version(registry.model_name, "1", "Mine.")
    registry.store_verdict(version, passed_verdict("eval_gate", version, None))
    assert client.get_model_version(registry.model_name, "1").description == "Mine."


def test_a_run_and_a_model_version_have_pages_in_mlflows_ui(
    resources: Resources, adapter_folders: tuple[Path, ...]
) -> None:
    run_id = trained(resources, adapter_folders[0], "1").mlflow_run_id
    uri = resources.tracking.tracking_uri
    tracking = Tracking(tracking_uri=uri, ui_url="http://mlflow.example/")
    of = MlflowClient(uri).get_run(run_id).info.experiment_id
    page = f"http://mlflow.example/#/experiments/{of}/runs/{run_id}{ML_VIEW}"
    assert tracking.page(run_id) == page
    gone = "0" * 32
    assert tracking.page(gone) == f"http://mlflow.example/#/runs/{gone}{ML_VIEW}"
    registry = Registry(tracking_uri="x", model_name="a b", ui_url="http://mlflow.example")
    version = model_version(7, model="a b")
    assert registry.page(version) == f"http://mlflow.example/#/models/a%20b/versions/7{ML_VIEW}"


def test_a_verdict_of_a_newer_release_is_read_and_one_that_is_none_is_passed_over(
    resources: Resources, adapter_folders: tuple[Path, ...], caplog: pytest.LogCaptureFixture
) -> None:
    registry, client = resources.registry, MlflowClient(resources.registry.tracking_uri)
    version = registry.register(trained(resources, adapter_folders[0], "1"))
    verdict = passed_verdict("eval_gate", version, None)
    newer = json.loads(verdict.model_dump_json())
    newer["newer"] = newer["checks"][0]["newer"] = 1
    tags = {"eval_gate": json.dumps(newer), "perf_gate": "garbage", "other_gate": "{}"}
    for gate, text in tags.items():
        client.set_model_version_tag(registry.model_name, "1", f"verdict.{gate}", text)
        client.set_tag(version.run_id, f"verdict.{gate}", text)
    assert registry.verdicts(version) == {"eval_gate": verdict}
    assert caplog.text.count(f"A verdict on {registry.model_name} version 1 is passed over") == 2
    assert registry.tracking.verdict(version.run_id, "eval_gate") == verdict
    assert registry.tracking.verdict(version.run_id, "perf_gate") is None


def test_with_a_key_a_verdict_on_a_run_counts_only_with_the_signature_of_that_run(
    resources: Resources, adapter_folders: tuple[Path, ...]
) -> None:
    unsigned, signing = resources.registry.tracking, with_key(resources.registry).tracking
    one, two = (trained(resources, adapter_folders[n], "1").mlflow_run_id for n in (0, 1))
    verdict = passed_verdict("quality_gate", model_version(), None)
    unsigned.store_verdict(one, verdict, "model")
    assert verdict == unsigned.verdict(one, "quality_gate")
    forged = signing.verdict(one, "quality_gate")
    assert forged is not None
    assert (forged.passed, forged.outcome) == (False, "inconclusive")
    signing.store_verdict(one, verdict, "model")
    assert signing.verdict(one, "quality_gate") == verdict
    kept = MlflowClient(signing.tracking_uri).get_run(one).data.tags["verdict.quality_gate"]
    signing.reopen(two).tags({"verdict.quality_gate": kept})
    moved = signing.verdict(two, "quality_gate")
    assert moved is not None
    assert not moved.passed


def test_with_a_key_a_verdict_counts_only_with_its_own_signature(
    resources: Resources, adapter_folders: tuple[Path, ...]
) -> None:
    unsigned, registry = resources.registry, with_key(resources.registry)
    client = MlflowClient(registry.tracking_uri)
    one, two = (registry.register(trained(resources, adapter_folders[n], str(n))) for n in (0, 1))
    verdict = passed_verdict("eval_gate", one, None)
    unsigned.store_verdict(one, verdict)
    assert unsigned.verdicts(one) == {"eval_gate": verdict}

    def against() -> str:
        found = registry.verdicts(one)
        assert registry.verdicts(two) == {}
        reasons = Case(one, None, found, "staged").against
        return "; ".join(each for each in reasons if each.startswith("eval_gate"))

    assert "eval_gate failed: its signature is missing (LORA_ASSETS_VERDICT_KEY)" in against()
    registry.store_verdict(one, verdict)
    assert against() == ""
    kept = client.get_model_version(registry.model_name, "1").tags["verdict.eval_gate"]
    # Other numbers under the same signature, or another version's.
    other = kept.replace('"notes":[]', '"notes":["changed"]')
    client.set_model_version_tag(registry.model_name, "1", "verdict.eval_gate", other)
    assert "its signature is wrong" in against()
    client.set_model_version_tag(registry.model_name, "2", "verdict.eval_gate", kept)
    assert not registry.verdicts(two)["eval_gate"].passed
    assert "k" * 64 not in repr(registry)
    # Without the key it is a verdict like others.
    assert unsigned.verdicts(two) == {"eval_gate": verdict}
