"""ask: the first question is put as training puts it."""

from collections.abc import Mapping
from pathlib import Path

import pytest

from lora_assets.embedded.data_set.versions import contents
from lora_assets.records.dataset import Row, prompt_like, prompt_of
from lora_assets.records.served import CANDIDATE_SLOT, LIVE_SLOT
from lora_assets.records.split_file import parse_split
from lora_assets.stack_resources import Resources
from tests.support.commands import Run, register, serve
from tests.support.data_versions import drop
from tests.support.rows import make_row

MINE = prompt_of("A: Does b.", "What does A do?")


def prompts(form: str) -> str | None:
    row = {"context": "B: Does c.", "question": "What does B do?"}
    prompt = form.format(**row)
    return prompt_like(
        make_row(**row, prompt_inference=prompt, prompt_training=f"{prompt} Yes."),
        "A: Does b.",
        "What does A do?",
    )


def test_a_prompt_has_the_form_of_those_of_the_data_whatever_it_is() -> None:
    assert prompts("[INST] Context:\n{context}\n\nQuestion: {question} [/INST]") == MINE
    assert prompts("<|user|>{question}\n{context}<|assistant|>") == (
        "<|user|>What does A do?\nA: Does b.<|assistant|>"
    )
    assert prompts("<|user|>{question}<|assistant|>") is None


def test_live_and_the_candidate_answer_what_they_answer_to_the_training_prompt(
    run: Run, environment: Mapping[str, str], resources: Resources,
    adapter_folders: tuple[Path, ...], tmp_path: Path,
) -> None:  # fmt: skip
    refused = "error: Nothing is live yet. Promote an adapter first."
    assert run(environment, "ask", "What does A do?")[0] == refused
    drop(resources.data_bucket.uri, "1")
    data, _ = resources.data_bucket.read("1")
    for number, (alias, slot) in enumerate((("live", LIVE_SLOT), ("staged", CANDIDATE_SLOT))):
        version = register(resources, adapter_folders[number], alias, data_digest=data.digest)
        serve(resources, version, slot)
    rows, _ = parse_split("eval", contents(["logs"], False)["eval"])
    row: Row = next(iter(rows.values()))
    (tmp_path / "context.txt").write_text(row.context)
    asked = ("ask", row.question, "--context", str(tmp_path / "context.txt"))
    ended, printed = run(environment, *asked, "--compare")
    assert ended == 0
    replica = resources.fleet.discover().members[0]
    for slot in (LIVE_SLOT, CANDIDATE_SLOT):
        assert slot in printed
        assert replica.complete(slot, row.prompt_inference, 256).text.strip() in printed
    assert LIVE_SLOT not in run(environment, *asked)[1]


@pytest.mark.integration
@pytest.mark.parametrize(
    ("question", "content"), [("What?", None), ("What?", b"\xff"), ("caf\udcff", b"")]
)
def test_a_question_or_a_context_that_is_no_text_is_one_line(
    run: Run, tmp_path: Path, question: str, content: bytes | None
) -> None:
    file = tmp_path / "context.txt"
    if content is not None:
        file.write_bytes(content)
    environment = {"LORA_ASSETS_HOME": str(tmp_path)}
    ended, _ = run(environment, "ask", question, "--context", str(file))
    named = file if question == "What?" else "The question is not text in UTF-8"
    assert str(ended).startswith(f"error: {named}")
    assert "\n" not in str(ended)
