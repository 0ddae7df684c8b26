"""A real MLflow with its users, by the command, the script and the variables of deploy/mlflow."""

import os
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import mlflow
import pytest
import yaml

from lora_assets.errors import LoraAssetsError
from lora_assets.resources.adapter_source import fetch_adapter
from lora_assets.resources.mlflow_client import mlflow_client
from lora_assets.settings import read_settings
from tests.support.dagster_services import PROGRAMS, Part
from tests.support.manifests import DEPLOY, code_location, find, variables
from tests.support.stack import free_port

pytestmark = pytest.mark.integration

SECRETS = {
    (each["metadata"]["name"], each["metadata"]["namespace"]): each["stringData"]
    for each in yaml.safe_load_all((DEPLOY / "trial" / "secrets.yaml").read_text())
}


def deployed(folder: Path, port: int) -> Part:
    def here(text: str) -> str:
        for there in ("/var/lib/mlflow", "/etc/mlflow"):
            text = text.replace(there, str(folder))
        return text.replace("0.0.0.0", "127.0.0.1").replace("5000", str(port))

    for name, text in find("ConfigMap", "mlflow-users")["data"].items():
        (folder / name).write_text(here(text))
    pod = find("Deployment", "mlflow")["spec"]["template"]["spec"]
    (users,), (server,) = pod["initContainers"], pod["containers"]
    assert server["image"] == users["image"] == f"ghcr.io/mlflow/mlflow:v{mlflow.__version__}-full"
    url = urlsplit(read_settings({"LORA_ASSETS_STACK": "cluster"}).mlflow_tracking_uri)
    assert f"--allowed-hosts={url.hostname},{url.netloc},localhost:*" in server["command"]
    given = {name: here(each["value"]) for name, each in variables(server).items()}
    given |= SECRETS["mlflow-users", "ai-platform"]
    # A second start finds the users.
    for _ in range(2):
        command = [sys.executable, *map(here, users["command"][1:])]
        subprocess.run(command, env={**os.environ, **given}, check=True)
    program, *options = server["command"]
    command = [str(PROGRAMS / program), *map(here, options)]
    return Part("MLflow", port, command, folder / "mlflow.log", "/health", given)


def test_runs_write_and_steps_only_read_and_no_other_server_gets_a_password(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = free_port()
    url = f"http://localhost:{port}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", url)

    def sign_in(namespace: str) -> None:
        for name, value in SECRETS["mlflow-auth", namespace].items():
            assert name in variables(code_location())
            monkeypatch.setenv(name, value)

    with deployed(tmp_path, port).running():
        client = mlflow_client(url)
        with pytest.raises(LoraAssetsError, match=r"not authenticated.*MLFLOW_TRACKING_USERNAME"):
            client.search_registered_models()
        sign_in("dagster")
        client.create_registered_model("m")
        run = client.create_run(client.create_experiment("training")).info
        client.log_artifact(run.run_id, tmp_path / "users.py")
        client.create_model_version("m", source=run.artifact_uri, run_id=run.run_id)
        sign_in("ml-models")
        assert client.get_model_version("m", "1").run_id == run.run_id
        assert [file.path for file in client.list_artifacts(run.run_id)] == ["users.py"]
        for name, *arguments in (
            ("set_registered_model_tag", "m", "lora_assets.promotion", "{}"),
            ("set_registered_model_alias", "m", "live", "1"),
            ("set_model_version_tag", "m", "1", "verdict.eval_gate", "{}"),
            ("set_tag", run.run_id, "verdict.quality_gate", "{}"),
            ("log_artifact", run.run_id, tmp_path / "users.py"),
            ("create_model_version", "m", run.artifact_uri, run.run_id),
        ):
            with pytest.raises(LoraAssetsError, match="Permission denied"):
                getattr(client, name)(*arguments)
    for elsewhere in ("http://evil:80", f"http://localhost:{port + 1}"):
        with pytest.raises(LoraAssetsError, match=f"^MLflow's password is for localhost:{port}"):
            mlflow_client(elsewhere)
    with pytest.raises(LoraAssetsError, match=r"password is for .*, not for evil:80"):
        fetch_adapter("mlflow-artifacts://evil:80/0/adapter", url, tmp_path / "fetched")
