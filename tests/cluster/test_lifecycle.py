"""Two data versions, from nothing to live, through the whole graph in its cluster wiring."""

from pathlib import Path

import psycopg2
import pytest
from mlflow import MlflowClient

from lora_assets.assets.perf_metrics import STORED_METRICS
from lora_assets.assets.perf_tables import STORED_SAMPLES
from lora_assets.records.load import LoadMetrics, LoadSamples
from lora_assets.records.served import LIVE_SLOT
from tests.support.cluster import BUCKET, Cluster
from tests.support.cluster_stages import Run, build, gate_and_promote, status, succeed, train

pytestmark = pytest.mark.e2e


def test_two_versions_go_from_nothing_to_live_and_back(cluster: Cluster, run: Run) -> None:
    build(run, "1", "sqs")
    train(run, "1", learning_rate="1e-3")
    gate_and_promote(run)
    first = status(run)
    data_versions = {name: held["data_version"] for name, held in first["aliases"].items()}
    assert data_versions == {"candidate": "1", "live": "1"}

    build(run, "2", "sqs,sns")
    train(run, "2", learning_rate="3e-3")
    gate_and_promote(run)
    second = status(run)
    digests = {name: held["digest"] for name, held in second["aliases"].items()}
    assert digests["previous"] == first["aliases"]["live"]["digest"] != digests["live"]
    assert second["replicas"][0]["adapters"][LIVE_SLOT] == digests["live"]
    for gate in ("eval_gate", "perf_gate"):
        number = str(second["aliases"]["live"]["version"])
        assert second["verdicts"][number][gate]["compared_with"] == digests["previous"]

    succeed(run, "rollback")
    third = status(run)
    assert third["aliases"]["live"]["digest"] == digests["previous"]
    assert third["aliases"]["previous"]["digest"] == digests["live"]
    assert third["replicas"][0]["adapters"][LIVE_SLOT] == digests["previous"]

    bucket = cluster.folder / "s3" / BUCKET
    for data_version in ("1", "2"):
        assert (bucket / f"data/processed/{data_version}/eval.jsonl").is_file()
        for asset in ("adapter", "eval_grades", "perf_metrics", "live_deployment"):
            assert (bucket / f"lora-assets/records/{asset}/{data_version}.json").is_file()
    _evidence_is_in_mlflow(cluster)
    _events_are_in_postgresql(cluster)


def _evidence_is_in_mlflow(cluster: Cluster) -> None:
    """Adapters went through the server; the load test was read from Prometheus and compared."""
    client = MlflowClient(cluster.mlflow.url)
    registry, tracking = cluster.resources.registry, cluster.resources.tracking
    for alias, version in registry.aliases().items():
        uri = client.get_run(version.run_id).info.artifact_uri
        assert uri is not None
        assert uri.startswith("mlflow-artifacts:/"), alias
        stored = cluster.folder / "artifacts" / uri.removeprefix("mlflow-artifacts:/")
        assert (stored / "adapter" / "adapter_model.safetensors").is_file()
    verdict = registry.verdicts(registry.aliases()["previous"])["perf_gate"]
    assert verdict.passed
    assert verdict.faults == ()
    assert verdict.evidence_run_id is not None
    run = client.get_run(verdict.evidence_run_id)
    assert run.data.tags["data.version"] == "2"
    assert run.data.metrics["server.e2e_request_latency_seconds.p95_low"] >= 0
    live = registry.verdicts(registry.aliases()["live"])["perf_gate"].evidence_run_id
    assert live is not None
    baseline = tracking.record(live, STORED_METRICS, LoadMetrics)
    # Its prompts were those of data version 1, so live was measured anew beside the candidate.
    assert run.data.metrics["baseline.throughput"] != baseline.throughput
    samples = tracking.record(verdict.evidence_run_id, STORED_SAMPLES, LoadSamples)
    assert samples.live is not None
    assert len(samples.live) == len(samples.candidate)


def _events_are_in_postgresql(cluster: Cluster) -> None:
    with psycopg2.connect(
        host="127.0.0.1", port=cluster.postgresql.port, user="dagster", dbname="postgres"
    ) as database:
        cursor = database.cursor()
        cursor.execute(
            "select distinct asset_key, partition from event_logs where dagster_event_type = %s",
            ("ASSET_MATERIALIZATION",),
        )
        found = set(cursor.fetchall())
    assert {('["live_deployment"]', "1"), ('["live_deployment"]', "2")} <= found
    assert not list(Path(cluster.environment["LORA_ASSETS_HOME"]).glob("dagster/**/*.db"))
