"""The trial cluster's image: the containers of deploy/trial, run as Kubernetes runs them."""

from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path

import httpx
import psycopg2
import pytest
import yaml

from tests.support.cluster import Cluster
from tests.support.dagster_services import is_answered, is_listening, until
from tests.support.images import Image
from tests.support.manifests import DEPLOY
from tests.support.stack import free_port

pytestmark = pytest.mark.e2e

Options = Mapping[str, Mapping[str, str]]


def command(file: str) -> Sequence[str]:
    """Return the command of the one container of a file of deploy/trial."""
    (first, *_) = yaml.safe_load_all((DEPLOY / "trial" / file).read_text())
    (container,) = first["spec"]["template"]["spec"]["containers"]
    return [*container["command"], *container.get("args", ())]


def open_folder(path: Path) -> str:
    """Make a folder that the image's user may write into."""
    path.mkdir()
    path.chmod(0o777)
    return str(path)


def test_postgresql_makes_its_database_once_and_takes_the_password(
    trial: Image, tmp_path: Path
) -> None:
    port = free_port()
    given = command("postgresql.yaml")
    words = [word.replace("exec postgres", f"exec postgres -p {port}") for word in given]
    options: Options = {
        "environment": {"PGDATA": "/var/lib/postgresql/data", "PASSWORD": "trial"},
        "mounts": {"/var/lib/postgresql": open_folder(tmp_path / "data")},
    }
    isready = ("pg_isready", "-h", "127.0.0.1", "-p", str(port), "-U", "dagster")
    asked = f"host=127.0.0.1 port={port} user=dagster dbname=postgres password="
    for already in (0, 1):
        with (
            trial.serving(words, lambda: trial.run(*isready).returncode == 0, **options),
            closing(psycopg2.connect(f"{asked}trial")) as connection,
        ):
            with connection, connection.cursor() as cursor:
                cursor.execute("create table if not exists kept (run int)")
                cursor.execute("select count(*) from kept")
                assert cursor.fetchone() == (already,)
                cursor.execute("insert into kept values (1)")
            with pytest.raises(psycopg2.OperationalError, match="password authentication failed"):
                psycopg2.connect(f"{asked}other")
        until(lambda: not is_listening(port), "the end of PostgreSQL")


def test_the_s3_server_has_the_bucket_and_a_data_version_is_made_in_it(
    trial: Image, tmp_path: Path
) -> None:
    port = free_port()
    key = {"AWS_ACCESS_KEY_ID": "trial", "AWS_SECRET_ACCESS_KEY": "trial-secret"}
    # Kubernetes puts a container's variables into its arguments.
    words = [
        word.replace("9000", str(port))
        .replace("$(AWS_ACCESS_KEY_ID)", "trial")
        .replace("$(AWS_SECRET_ACCESS_KEY)", "trial-secret")
        for word in command("s3.yaml")
    ]
    mounts = {"/data": open_folder(tmp_path / "data")}
    with trial.serving(words, lambda: is_listening(port), mounts=mounts):
        url = f"http://127.0.0.1:{port}"
        environment = {**key, "AWS_ENDPOINT_URL_S3": url, "AWS_DEFAULT_REGION": "eu-central-1"}
        build = "lora-assets data build --data-version 1 --services logs"
        for _ in range(2):
            trial.output(*build.split(), environment=environment)
        made = (tmp_path / "data" / "my-vllm-data").rglob("*")
        assert {path.name for path in made if path.is_file()} == {
            *("train.jsonl", "val.jsonl", "eval.jsonl")
        }


def test_the_server_stands_in_for_vllm_and_for_the_judge(
    trial: Image, cluster: Cluster, tmp_path: Path
) -> None:
    (deployment,) = yaml.safe_load_all((DEPLOY / "trial" / "vllm.yaml").read_text())
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    port = free_port()
    words = [word.replace("8000", str(port)) for word in container["command"]]
    options: Options = {
        "environment": {
            "MLFLOW_TRACKING_URI": cluster.environment["MLFLOW_TRACKING_URI"],
            "ADAPTERS_DIR": "/mnt/adapters",
            "VLLM_API_KEY": "trial-key",
        },
        "mounts": {"/mnt/adapters": open_folder(tmp_path / "adapters")},
    }
    url = f"http://127.0.0.1:{port}"
    with trial.serving(words, lambda: is_answered(f"{url}/health"), **options):
        headers = {"Authorization": "Bearer trial-key"}
        for path, model in (("/v1/models", "embedded-base"), ("/judge/v1/models", "lexical-judge")):
            assert httpx.get(f"{url}{path}").status_code == 401
            served = httpx.get(f"{url}{path}", headers=headers).json()["data"]
            assert model in {each["id"] for each in served}


@pytest.mark.parametrize(
    "words", ["nslookup localhost", "dagster-webserver --version", "dagster-daemon --version"]
)
def test_the_image_has_what_dagsters_chart_calls(trial: Image, words: str) -> None:
    assert trial.output("/bin/bash", "-c", words)
    assert trial.run("nslookup", "no-such-host.invalid").returncode != 0
