"""What SECURITY.md says is proved by tests that are there."""

import re
from pathlib import Path

import yaml

ROOT = Path(__file__).parent.parent


def test_each_of_the_eight_attackers_has_a_test_that_is_there() -> None:
    page = (ROOT / "SECURITY.md").read_text()
    _, _, table = page.partition("## Eight attackers")
    rows = [line for line in table.splitlines() if line.startswith("| ")][1:]
    assert len(rows) == 8
    assert all(re.search(r"`tests/[\w/]+\.py::\w+`", row) for row in rows)
    for file, name in re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", page):
        assert f"def {name}(" in (ROOT / file).read_text(), f"{file}::{name}"


def test_a_pull_request_gets_no_secret_and_writes_nothing() -> None:
    started = []
    for file in sorted((ROOT / ".github/workflows").glob("*.yaml")):
        text = file.read_text()
        # YAML 1.1 reads the key "on" as true.
        workflow = yaml.safe_load(text)
        assert "pull_request_target" not in text
        if "pull_request" not in workflow[True]:
            continue
        started.append(file.name)
        assert workflow["permissions"] == {"contents": "read"}
        assert "secrets." not in text
        assert all("permissions" not in job for job in workflow["jobs"].values())
    assert started == ["test.yaml", "trial.yaml"]
