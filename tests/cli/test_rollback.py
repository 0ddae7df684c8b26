"""rollback and history, as a person types them."""

import json
from collections.abc import Mapping
from pathlib import Path

from mlflow import MlflowClient

from lora_assets.records.served import CANDIDATE_SLOT
from lora_assets.stack_resources import Resources
from tests.support.commands import Run
from tests.support.promotions import aliases, promote, stage


def test_a_rollback_says_what_it_does_is_done_once_and_stands_in_the_history(
    run: Run, environment: Mapping[str, str], resources: Resources,
    adapter_folders: tuple[Path, ...],
) -> None:  # fmt: skip
    environment = {**environment, "COLUMNS": "250"}
    assert run(environment, "history") == (
        0,
        "nothing was promoted or rolled back in mistral-7b-lora yet\n",
    )
    first = stage(resources, adapter_folders[0], "1")
    promote(resources, "1")
    second = stage(resources, adapter_folders[1], "2")
    promote(resources, "2")
    from_to = (
        f"rollback from version 2 (data version 2, {second.digest[:12]}) "
        f"to version 1 (data version 1, {first.digest[:12]})\n"
    )
    assert run(environment, "rollback", "--dry-run") == (0, f"would be a {from_to}")
    planned = json.loads(run(environment, "rollback", "--dry-run", "--json")[1])
    assert (planned["action"], planned["replaced"], planned["model_version"]) == ("rollback", 2, 1)
    ended, _ = run(environment, "rollback", "--slot-name", CANDIDATE_SLOT)
    assert str(ended).startswith(
        f"error: roll_back: {CANDIDATE_SLOT} is the candidate slot, whose clients"
    )
    ended, _ = run(environment, "rollback", "--reason", "a\nb")
    assert str(ended).startswith("error: --reason a\nb is not possible")
    others = MlflowClient(resources.registry.tracking_uri)
    for number in range(101):
        others.create_registered_model(f"a{number}")
    dry = ("rollback", "--dry-run", "--model-name", second.model)
    assert run(environment, *dry) == (0, f"would be a {from_to}")
    assert aliases(resources) == {"live": 2, "previous": 1}
    assert run(environment, "rollback", "--reason", "wrong answers") == (0, from_to)
    assert aliases(resources) == {"live": 1, "previous": 2}
    for again in (("rollback",), ("rollback", "--to", "1"), ("promote", "--source-alias=previous")):
        ended, printed = run(environment, *again)
        assert (ended, printed.startswith("nothing to do: version 1 is live")) == (0, True)
    again = json.loads(run(environment, "rollback", "--json")[1])
    assert (again["action"], again["replaced"]) == ("nothing changed", None)
    ended, printed = run(environment, "rollback", "--to", "2", "--json")
    returned = json.loads(printed)
    assert (ended, returned["action"], returned["replaced"]) == (0, "return", 1)
    assert run(environment, "rollback", "--reason", "wrong answers")[0] == 0
    ended, _ = run(environment, "rollback", "--to", "3")
    assert str(ended).startswith("error: mistral-7b-lora has no version 3")
    ended, printed = run(environment, "history", "--json")
    last = json.loads(printed)[-1]
    told = {"action": "rollback", "version": 1, "replaced": 2, "why": "wrong answers"}
    assert {name: last[name] for name in told} == told
    ended, printed = run(environment, "history")
    assert "rollback from version 2 to version 1" in printed
    assert "version 2 is live again only with --to 2" in printed
    narrow = run({**environment, "COLUMNS": "80"}, "history")[1]
    assert "…" not in narrow
    # No word is broken.
    assert {last["digest"][:12], "quality_gate"} <= {*narrow.replace("│", " ").split()}
