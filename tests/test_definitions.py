from typing import Any

from dagster_aws.s3 import S3Resource

from lora_assets.assets.graph import OWNERS, data_versions
from lora_assets.definitions import ASSETS, CHECKS, defs, make_definitions
from lora_assets.lifecycle import JOBS, STAGES
from lora_assets.sensors.history import gate_keys
from lora_assets.settings import read_settings


def test_the_graph_is_the_lifecycle_in_its_order() -> None:
    names = list(STAGES)
    assert {asset.key.to_user_string() for asset in ASSETS} == set(names)
    assert {key for check in CHECKS for key in check.check_keys} == set(gate_keys(names))
    for asset in ASSETS:
        place = names.index(asset.key.to_user_string())
        before = {key.to_user_string() for key in asset.dependency_keys}
        assert before <= set(names[:place])
        assert place == 0 or names[place - 1] in before


def test_every_asset_says_what_it_is_and_who_answers_for_it() -> None:
    for asset in ASSETS:
        (spec,) = asset.specs
        assert spec.description, spec.key
        assert list(spec.owners) == OWNERS
        assert spec.kinds
        assert spec.group_name != "default"
        assert spec.code_version


def test_every_gate_is_described_and_blocks_its_own_data_version() -> None:
    for check in CHECKS:
        (spec,) = check.check_specs
        assert spec.description, spec.name
        assert spec.blocking
        assert spec.partitions_def == data_versions


def test_the_repair_of_replicas_is_on_as_installed_in_a_cluster_alone() -> None:
    for stack, status in (("cluster", "RUNNING"), ("embedded", "STOPPED")):
        made = make_definitions(read_settings({"LORA_ASSETS_STACK": stack}))
        (sensor,) = (s for s in made.sensors or () if s.name == "replica_repair")
        assert (stack, sensor.default_status.name) == (stack, status)


def test_every_job_and_sensor_says_what_it_does() -> None:
    jobs = [defs.resolve_job_def(job) for job in (*JOBS, "repair_replicas")]
    described: list[Any] = [*jobs, *(defs.sensors or ())]
    assert [each.name for each in described if not each.description] == []


def test_a_bucket_in_s3_is_dagsters_own_resource_that_shows_endpoint_and_region_but_no_key() -> (
    None
):
    places = {"AWS_ENDPOINT_URL_S3": "http://minio:9000", "AWS_DEFAULT_REGION": "eu-central-1"}
    keys = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret"}
    settings = read_settings({"LORA_ASSETS_STACK": "cluster", **places, **keys})
    resources = make_definitions(settings).resources or {}
    s3 = resources["s3"]
    assert isinstance(s3, S3Resource)
    given = {name: value for name, value in dict(s3).items() if value != S3Resource().dict()[name]}
    assert given == {
        "endpoint_url": "http://minio:9000",
        "region_name": "eu-central-1",
        "max_attempts": 3,
    }
    assert resources["data_bucket"].s3 is resources["io_manager"].s3 is s3


def test_a_bucket_in_a_folder_has_no_s3_resource() -> None:
    assert "s3" not in (defs.resources or {})
