"""`make demo` and `make ui` as the README has them, on the ports that it names."""

import os
import re
import shlex
import signal
import subprocess
from pathlib import Path
from subprocess import PIPE, STDOUT

import httpx
import pytest

from tests.support.consoles import REPOSITORY, block, masked, typed

pytestmark = pytest.mark.e2e


def test_the_two_commands_of_the_readme_do_and_print_what_it_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(REPOSITORY)
    monkeypatch.setenv("LORA_ASSETS_HOME", str(tmp_path / "home"))
    commands = typed(REPOSITORY / "README.md", "checkout")[:2]
    demo, ui = (shlex.split(each.line, comments=True) for each in commands)
    assert (demo, ui) == (["make", "demo"], ["make", "ui"])
    ended = subprocess.run(demo, stdout=PIPE, stderr=STDOUT, text=True, check=False)
    assert ended.returncode == 0, ended.stdout
    printed = masked(ended.stdout)
    for part in re.split(r"\n\n|\s\.\.\.\s", block("README.md", "text", "demo")):
        assert masked(part) in printed, part
    with subprocess.Popen(ui, stdout=PIPE, text=True, start_new_session=True) as running:
        try:
            assert running.stdout is not None
            assert any("Ready: " in line for line in running.stdout)
            served = httpx.get("http://127.0.0.1:8000/v1/models").json()["data"]
            assert "aws-rag-qa-live" in {each["id"] for each in served}
        finally:
            os.killpg(running.pid, signal.SIGINT)
            running.wait(60)
