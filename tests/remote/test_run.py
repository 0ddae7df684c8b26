"""Stage commands against a real Dagster: webserver, daemon and code server, each a process."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import pytest

from lora_assets.assets.served import ensure_loaded
from lora_assets.cli.main import main
from lora_assets.records.model_version import ModelVersion
from lora_assets.records.run_outcome import RunFailed
from lora_assets.remote.run import RemoteRun, stop_signals
from lora_assets.remote.webserver import DagsterWebserver
from lora_assets.settings import read_settings
from lora_assets.stack_resources import make_resources
from tests.support.commands import keep
from tests.support.dagster_services import PATIENCE_S, until
from tests.support.doubles.flaky_network import FlakyNetwork
from tests.support.remote_dagster import SECRET, RemoteDagster
from tests.support.stack import passed_verdict, trained

OTHER_MODEL = "another-model"


@dataclass
class Command:
    """A command that is under way, in a process of its own."""

    process: subprocess.Popen[str]
    printed: str = ""

    def read_until(self, text: str) -> None:
        assert self.process.stderr
        while text not in self.printed:
            line = self.process.stderr.readline()
            assert line, f"{text!r} was not printed, but: {self.printed}"
            self.printed += line

    def end(self) -> tuple[int, str]:
        _, rest = self.process.communicate(timeout=PATIENCE_S)
        return self.process.returncode, self.printed + rest


Start = Callable[..., Command]
Run_ = Callable[..., tuple[int, str]]


@pytest.fixture
def start(dagster: RemoteDagster) -> Iterator[Start]:
    """Start a command of a request, by default through the real network and of no workflow."""
    processes: list[subprocess.Popen[str]] = []

    def started(
        request: str, *arguments: str, url: str = dagster.url, workflow: str = ""
    ) -> Command:
        process = subprocess.Popen(
            [sys.executable, "-m", "lora_assets.cli.main", *arguments],
            env={
                **os.environ,
                **dagster.environment,
                "DAGSTER_URL": url,
                "LORA_ASSETS_REQUEST": request,
                "LORA_ASSETS_ARGO_WORKFLOW": workflow,
            },
            stderr=subprocess.PIPE,
            text=True,
        )
        processes.append(process)
        return Command(process)

    yield started
    for process in processes:
        process.kill()
        process.wait()


@pytest.fixture
def run(
    dagster: RemoteDagster, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Run_:
    """Run a command in this process: its exit code, and what it printed for a person."""

    def command(request: str, *arguments: str, **environment: str) -> tuple[int, str]:
        variables = {
            **dagster.environment,
            "DAGSTER_URL": dagster.url,
            "LORA_ASSETS_REQUEST": request,
            **environment,
        }
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr("sys.argv", ["lora-assets", *arguments])
        capfd.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        code = ended.value.code
        printed = capfd.readouterr().err
        return (1, f"{printed}{code}\n") if isinstance(code, str) else (code or 0, printed)

    return command


@pytest.fixture
def request_key() -> str:
    return str(uuid4())


def outputs(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in folder.iterdir()}


@pytest.fixture(scope="module")
def staged(dagster: RemoteDagster, adapter_folders: tuple[Path, ...]) -> ModelVersion:
    """An adapter of data version 1 in the candidate slot, with its smoke test passed."""
    resources = dagster.resources
    data, _ = resources.data_bucket.read("1")
    adapter = trained(resources, adapter_folders[0], "1").model_copy(
        update={"data_digest": data.digest}
    )
    version = resources.registry.register(adapter)
    resources.registry.store_verdict(version, passed_verdict("smoke_test", version, None))
    resources.registry.set_alias("candidate", version)
    resources.registry.set_alias("staged", version)
    fleet = resources.fleet
    ensure_loaded(resources.registry, fleet.discover(), version, resources.work_folder)
    fleet.discover().renew_slot(fleet.candidate_slot, version.serving_name, version.digest, ("a",))
    keep(resources, "training_data", data)
    keep(resources, "adapter", adapter)
    keep(resources, "staged_deployment", version)
    return version


def test_a_step_that_is_stopped_before_its_launch_launches_nothing() -> None:
    launched: list[str] = []
    with stop_signals() as stop:
        os.kill(os.getpid(), signal.SIGTERM)
        remote = RemoteRun(DagsterWebserver("http://127.0.0.1:9", ""), {}, print)
        with pytest.raises(RunFailed, match="stopped before anything was launched"):
            remote.launch(lambda: launched.append("a run"), stop)
    assert not launched


def test_a_step_follows_its_run_to_its_end_and_a_retry_finds_the_same_run(
    dagster: RemoteDagster, run: Run_, request_key: str, tmp_path: Path
) -> None:
    step = ("train", "--data-version", "1", "--step", "download-data")
    code, printed = run(request_key, *step, LORA_ASSETS_OUTPUTS=str(tmp_path))
    (launched,) = dagster.runs(request_key)
    assert code == 0
    assert f"run {dagster.url}/runs/{launched.run_id}\n" in printed
    assert "read train 8, val 8, eval 8 rows" in printed
    assert "PASSED: rows in train 8" in printed
    expected = {"run-id": launched.run_id, "data-version": "1", "result": "passed"}
    assert outputs(tmp_path) == expected
    (tmp_path / "run-id").unlink()
    code, printed = run(request_key, *step, LORA_ASSETS_OUTPUTS=str(tmp_path))
    assert code == 0
    assert "PASSED: rows in train 8" in printed
    assert outputs(tmp_path) == expected
    assert dagster.runs(request_key) == [launched.model_copy(update={"status": "SUCCESS"})]


def test_two_attempts_at_once_agree_on_one_run_and_the_other_never_works(
    dagster: RemoteDagster, start: Start, request_key: str
) -> None:
    network = FlakyNetwork(dagster.url, together=2)
    with network.serving() as url:
        step = ("train", "--data-version", "1", "--step", "download-data")
        attempts = [start(request_key, *step, url=url) for _ in range(2)]
        ended = [attempt.end() for attempt in attempts]
    first, second = sorted(dagster.runs(request_key), key=lambda run: run.created)
    assert (first.status, second.status) == ("SUCCESS", "CANCELED")
    for code, printed in ended:
        assert code == 0, printed
        assert f"/runs/{first.run_id}\n" in printed
    log = DagsterWebserver(dagster.url, dagster.url).events(second.run_id, None).events
    assert "ExecutionStepStartEvent" not in [event.kind for event in log]


def test_a_launch_whose_reply_is_lost_is_not_made_again(
    dagster: RemoteDagster, run: Run_, start: Start, request_key: str
) -> None:
    network = FlakyNetwork(dagster.url, lose_replies=1)
    with network.serving() as url, dagster.nothing_starts():
        attempt = start(request_key, "train", "--data-version", "1", url=url)
        attempt.read_until("queued")
        assert (network.launches, len(dagster.runs(request_key))) == (1, 1)
        network.down = True
        code, printed = attempt.end()
        assert code == os.EX_TEMPFAIL
        assert f"error: The connection to Dagster at {url} is lost" in printed
        network.down = False
        again = start(request_key, "train", "--data-version", "1", url=url)
        again.read_until("queued")
        assert (network.launches, len(dagster.runs(request_key))) == (1, 1)
        again.process.terminate()
        assert again.end()[0] == 1


def test_a_step_that_is_stopped_terminates_its_run(
    dagster: RemoteDagster, start: Start, run: Run_, request_key: str
) -> None:
    attempt = start(request_key, "train", "--data-version", "1")
    attempt.read_until("trained ")
    attempt.process.terminate()
    code, printed = attempt.end()
    (launched,) = dagster.runs(request_key)
    assert code == 1
    assert f"error: stopped; terminated {dagster.url}/runs/{launched.run_id}\n" in printed
    until(lambda: dagster.runs(request_key)[0].status == "CANCELED")
    code, printed = run(request_key, "train", "--data-version", "1")
    assert code == 1
    assert f"error: run {dagster.url}/runs/{launched.run_id} was terminated\n" in printed


def test_a_step_that_is_stopped_during_its_launch_terminates_what_it_launched(
    dagster: RemoteDagster, start: Start, request_key: str
) -> None:
    network = FlakyNetwork(dagster.url)
    with network.serving() as url, dagster.nothing_starts():
        network.go_on.clear()
        attempt = start(request_key, "train", "--data-version", "1", url=url)
        assert network.arrived.wait(PATIENCE_S)
        attempt.process.terminate()
        network.go_on.set()
        code, printed = attempt.end()
    assert code == 1
    assert "error: stopped; terminated" in printed
    assert [run.status for run in dagster.runs(request_key)] == ["CANCELED"]


def test_an_attempt_that_is_stopped_before_it_has_found_its_run_terminates_it(
    dagster: RemoteDagster, start: Start, request_key: str
) -> None:
    network = FlakyNetwork(dagster.url, holds=b"runsOrError")
    with network.serving() as url, dagster.nothing_starts():
        first = start(request_key, "train", "--data-version", "1")
        first.read_until("queued")
        first.process.kill()
        network.go_on.clear()
        again = start(request_key, "train", "--data-version", "1", url=url)
        assert network.arrived.wait(PATIENCE_S)
        again.process.terminate()
        network.go_on.set()
        code, printed = again.end()
    assert code == 1
    assert "error: stopped; terminated" in printed
    assert [run.status for run in dagster.runs(request_key)] == ["CANCELED"]


def test_what_a_stopped_workflow_left_running_is_terminated_once_dagster_answers(
    dagster: RemoteDagster, start: Start, request_key: str
) -> None:
    network = FlakyNetwork(dagster.url, down=True)
    other = str(uuid4())
    with network.serving() as url, dagster.nothing_starts():
        for request in (request_key, other):
            attempt = start(request, "train", "--data-version", "1", workflow=f"ml/{request}")
            attempt.read_until("queued")
            attempt.process.kill()
        handler = start("", "terminate", url=url, workflow=f"ml/{request_key}")
        handler.read_until(f"The connection to Dagster at {url} is lost")
        network.down = False
        code, _ = handler.end()
        assert code == 0
        assert [run.status for run in dagster.runs(request_key)] == ["CANCELED"]
        (left,) = dagster.runs(other)
        assert not left.ended
        # While it is queued: a run that is just starting is not to be terminated.
        DagsterWebserver(dagster.url, dagster.url).terminate(left.run_id)
        assert [run.status for run in dagster.runs(other)] == ["CANCELED"]


def test_a_check_asks_what_the_runs_of_dagster_will_work_with(
    dagster: RemoteDagster, run: Run_, request_key: str
) -> None:
    elsewhere = {"VLLM_URL": "http://127.0.0.1:9", "BASE_MODEL_NAME": "another"}
    code, printed = run(request_key, "check", "--data-version", "1", **elsewhere)
    assert (code, printed) == (0, "check: done\n")
    code, printed = run(request_key, "check", "--data-version", "1", "--vllm-url", "http://[::1]:9")
    assert code == 1
    assert printed.startswith("error: vLLM at http://[::1]:9 is unreachable")
    assert dagster.runs(request_key) == []


def test_a_run_that_is_deleted_under_its_step_is_one_line(
    dagster: RemoteDagster, start: Start, request_key: str
) -> None:
    with dagster.nothing_starts():
        attempt = start(request_key, "train", "--data-version", "1")
        attempt.read_until("queued")
        (launched,) = dagster.runs(request_key)
        dagster.ask(
            f'mutation {{ deletePipelineRun(runId: "{launched.run_id}") {{ __typename }} }}'
        )
        code, printed = attempt.end()
    assert code == 1
    assert f"error: run {launched.run_id} is gone: it was deleted in Dagster\n" in printed


def test_a_failed_quality_gate_ends_training_gracefully_in_a_workflow_only(
    dagster: RemoteDagster, staged: ModelVersion, run: Run_, request_key: str, tmp_path: Path
) -> None:
    step = ("train", "--data-version", "1", "--step", "quality-gate", "--max-eval-loss", "0.00001")
    code, printed = run(request_key, *step, LORA_ASSETS_OUTPUTS=str(tmp_path))
    assert code == 0
    assert "quality_gate stopped it: eval_loss 0.1 (must be <= 1e-05)" in printed
    found = outputs(tmp_path)
    assert (found["result"], found["digest"]) == ("failed", staged.digest)
    code, printed = run(request_key, *step, LORA_ASSETS_OUTPUTS="")
    assert code == 1
    *_, last = printed.splitlines()
    assert last.startswith("error: quality_gate stopped it: eval_loss 0.1 (must be <= 1e-05). ")
    assert len(dagster.runs(request_key)) == 1
    log = DagsterWebserver(dagster.url, dagster.url).events(found["run-id"], None).events
    began = [event.step for event in log if event.kind == "ExecutionStepStartEvent"]
    assert began == ["adapter_quality_gate"]


def test_the_run_works_where_the_parameters_say_and_no_secret_is_shown(
    dagster: RemoteDagster, staged: ModelVersion, adapter_folders: tuple[Path, ...], run: Run_,
    request_key: str,
) -> None:  # fmt: skip
    named = {**dagster.environment, "MODEL_NAME": OTHER_MODEL}
    registry = make_resources(read_settings(named)).registry
    other = registry.register(trained(dagster.resources, adapter_folders[1], "1"))
    registry.set_alias("staged", other)
    where = ("--model-name", OTHER_MODEL, "--vllm-url", "http://127.0.0.1:9")
    code, printed = run(request_key, "promote", *where)
    assert code == 1
    assert f"error: live_deployment: Version {other.version} ({other.digest[:12]})" in printed
    assert "perf_gate has no verdict" in printed
    (launched,) = dagster.runs(request_key)
    assert launched.tags["lora_assets/digest"] == other.digest
    seen = dagster.ask(
        f'{{ runOrError(runId: "{launched.run_id}") {{ ... on Run {{ runConfig }} }} }}'
    )
    configured = seen["runOrError"]["runConfig"]["resources"]
    assert configured["fleet"]["config"]["api_key"] == {"env": "VLLM_API_KEY"}
    assert configured["fleet"]["config"]["vllm_url"] == "http://127.0.0.1:9"
    assert set(configured) == {"fleet", "registry"}
    webserver = DagsterWebserver(dagster.url, dagster.url)
    shown = webserver.configured(webserver.locate("promote"))
    assert shown["fleet"]["api_key"] == {"env": "VLLM_API_KEY"}
    assert SECRET not in json.dumps([shown, seen])


def test_the_steps_of_an_evaluation_that_start_side_by_side_launch_one_run(
    dagster: RemoteDagster, staged: ModelVersion, start: Start, run: Run_, request_key: str,
    tmp_path: Path,
) -> None:  # fmt: skip
    steps = ("inference-candidate", "inference-live")
    sides = [start(request_key, "evaluate", "--step", step) for step in steps]
    for side in sides:
        code, printed = side.end()
        assert code == 0, printed
    code, printed = run(
        request_key, "evaluate", "--step", "judge-answers", LORA_ASSETS_OUTPUTS=str(tmp_path)
    )
    assert code == 0
    assert "graded 8 of 8" in printed
    (shared,) = dagster.runs(request_key)
    assert shared.status == "SUCCESS"
    assert outputs(tmp_path) == {
        "run-id": shared.run_id,
        "data-version": "1",
        "model-version": str(staged.version),
        "digest": staged.digest,
        "result": "passed",
    }


@pytest.mark.parametrize(
    ("arguments", "cause"),
    [
        (("train", "--data-version", "nope"), "Data version nope has no file:"),
        (("train", "--data-version", "1", "--lora-config", "huge"), "lora_config = 'huge'"),
        (("train", "--data-version", "1", "--num-epochs", "some"), "'some' is not a valid integer"),
        (("train", "--data-version", "1", "--step", "deploy"), "'deploy' is not one of"),
        (("performance",), "Alias 'eval-passed' of mistral-7b-lora is not set"),
        (("promote", "--source-alias", "best"), "Alias 'best' of mistral-7b-lora is not set"),
        (("train", "--data-version", "1", "--mlflow-tracking-uri", "http://[::1]:9"), "MLflow at"),
        (("terminate",), "The workflow whose runs to terminate, or its Dagster, is not given"),
    ],
)
def test_bad_input_is_refused_before_anything_is_launched(
    dagster: RemoteDagster, run: Run_, request_key: str, arguments: tuple[str, ...], cause: str
) -> None:
    code, printed = run(request_key, *arguments)
    assert code == 1
    assert cause in printed
    assert printed.startswith("error: ")
    assert printed.count("\n") == 1
    assert dagster.runs(request_key) == []


def test_data_that_has_changed_is_refused_before_the_evaluation(
    dagster: RemoteDagster, staged: ModelVersion, run: Run_, request_key: str
) -> None:
    path = dagster.home / "bucket" / "data" / "processed" / "1" / "val.jsonl"
    rows = path.read_text().splitlines(keepends=True)
    path.write_text("".join(rows[:-1]))
    code, printed = run(request_key, "evaluate", "--step", "download-eval-data")
    path.write_text("".join(rows))
    assert code == 1
    assert "error: Data version 1 has changed" in printed
    assert dagster.runs(request_key) == []


@pytest.mark.parametrize(
    ("url", "code", "cause"),
    [
        ("http://127.0.0.1:9", os.EX_TEMPFAIL, "is lost"),
        ("dagster", 1, "'dagster' is not a URL"),
        ("{vllm}", 1, "but not as Dagster does"),
    ],
)
def test_a_dagster_that_is_not_there_is_named(
    dagster: RemoteDagster, run: Run_, request_key: str, url: str, code: int, cause: str
) -> None:
    where = url.format(vllm=dagster.environment["VLLM_URL"])
    step = ("train", "--data-version", "1")
    ended, printed = run(request_key, *step, DAGSTER_URL=where)
    assert (ended, printed.count("\n")) == (code, 1)
    assert cause in printed


def test_a_database_that_dagster_can_not_use_is_a_lost_connection(
    dagster: RemoteDagster, run: Run_, request_key: str
) -> None:
    runs = dagster.home / "dagster" / "history" / "runs.db"
    with dagster.nothing_starts():
        kept = runs.rename(runs.with_suffix(".kept"))
        runs.mkdir()
        code, printed = run(request_key, "train", "--data-version", "1")
        runs.rmdir()
        kept.rename(runs)
    assert (code, printed.count("\n")) == (os.EX_TEMPFAIL, 1)
    assert "can't use its database" in printed


def test_a_code_location_that_failed_to_load_is_named_with_its_error(
    dagster: RemoteDagster, run: Run_, request_key: str
) -> None:
    """The last test: it takes the code location away."""
    dagster.code.kill()
    dagster.code.wait(PATIENCE_S)
    dagster.ask("mutation { reloadWorkspace { __typename } }")
    code, printed = run(request_key, "train", "--data-version", "1")
    assert code == 1
    assert "failed to load" in printed
    assert "this code location is broken" in printed
    assert "lora_assets: " in printed
    assert printed.count("\n") == 1
