"""The pages: their commands and outputs on the embedded stack, links, messages, parameters."""

import ast
import json
import re
import shlex
import subprocess
from collections.abc import Sequence
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
from peft import LoraConfig

from lora_assets.judging.refusals import declines
from lora_assets.lifecycle import STAGES
from lora_assets.records.conversion import convert, deal_out
from lora_assets.serving.adapter_files import CONFIG
from lora_assets.settings import read_settings
from tests.house import parameters
from tests.house.rooms import PRODUCT, files
from tests.support.commands import command
from tests.support.consoles import (
    PAGES,
    REPOSITORY,
    Typed,
    block,
    blocks,
    masked,
    require_shown,
    typed,
)
from tests.support.random_adapters import ATTENTION, save_adapter
from tests.support.stack import free_port, serving, stack_environment
from tests.support.tiny_models import save_tiny

TYPED_HERE = ("docs/first-hour.md", "README.md", "docs/data.md", "docs/register.md")
"""The pages in an order in which each finds what it needs: all have one home and one folder."""

FAIL = ("lora-assets data check draft",)
"""The commands that a page shows failing."""


def test_every_page_says_where_its_commands_run() -> None:
    plain = {str(page.relative_to(REPOSITORY)) for page in PAGES if typed(page)}
    assert plain == {*TYPED_HERE}


def plants(first: int, count: int) -> Sequence[dict[str, str]]:
    """Rows of another domain than the base model's; of every three one has no answer."""
    rows = []
    for number in range(first, first + count):
        name = f"{chr(65 + number % 26)}{chr(97 + number // 26)}wort"
        prompt, completion = f"Where does {name} grow?", f"Grows in field {number}."
        context = f"{name}: {completion}"
        if number % 3 == 0:
            prompt, completion = "Where does moss grow?", "It is not in the list."
        rows.append({"context": context, "prompt": prompt, "completion": completion})
    return rows


def write_lines(file: Path, rows: Sequence[object]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(f"{json.dumps(row)}\n" for row in rows))


def lay_out(folder: Path) -> None:
    """Put into a person's folder what the pages take to be there."""
    base = save_tiny(folder / "my-base", "llama", max_position_embeddings=1024)
    write_lines(folder / "plants.jsonl", plants(0, 60))
    write_lines(folder / "more-plants.jsonl", plants(20, 60))
    roles = (("system", "context"), ("user", "prompt"), ("assistant", "completion"))
    chats = [
        {"messages": [{"role": role, "content": row[key]} for role, key in roles]}
        for row in plants(100, 60)
    ]
    write_lines(folder / "chats.jsonl", chats)
    whole = "".join(f"{json.dumps(row)}\n" for row in plants(160, 60)).encode()
    splits = deal_out(convert("plants", whole, "prompt-completion", declines))
    for split, rows in splits.items():
        write_lines(folder / "my-data" / f"{split}.jsonl", rows)
        write_lines(folder / "draft" / f"{split}.jsonl", rows)
    blank = {**splits["eval"][2], "reference_answer": " "}
    faulty = [*splits["eval"][:2], blank, splits["train"][0]]
    write_lines(folder / "draft" / "eval.jsonl", faulty)
    shape = LoraConfig(r=8, target_modules=ATTENTION)
    checkpoint = save_adapter(folder / "out" / "checkpoint-900", shape, seed=0, base_model=base)
    config = json.loads((checkpoint / CONFIG).read_text())
    # peft writes where it found the base model.
    (checkpoint / CONFIG).write_text(json.dumps({**config, "base_model_name_or_path": "my-base"}))
    for name in ("README.md", "tokenizer.json", "training_args.bin"):
        (checkpoint / name).touch()
    for name, text in blocks(REPOSITORY / "docs" / "first-hour.md", "yaml"):
        (folder / name).write_text(text)


@pytest.mark.integration
def test_the_commands_of_the_pages_do_and_print_what_the_pages_say(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "person"
    lay_out(folder)
    monkeypatch.chdir(folder)
    environment = {**stack_environment(tmp_path / "home", free_port()), "PWD": str(folder)}
    servers: list[object] = []

    def restore() -> str:
        return command(["restore"], environment, monkeypatch, capfd).out

    with ExitStack() as running:

        def take(each: Typed) -> None:
            words = shlex.split(each.line, comments=True)
            match words:
                case ["export", *given]:
                    for name, _, value in (word.partition("=") for word in given):
                        environment[name] = value.replace("$PWD", str(folder))
                case [".", _]:
                    pass
                case ["lora-assets", "serve", "&"]:
                    if not servers:
                        servers.append(running.enter_context(serving(environment)))
                case ["lora-assets", *arguments]:
                    ended = command(arguments, environment, monkeypatch, capfd)
                    printed = f"{ended.out}{ended.err}{ended.code or ''}"
                    assert bool(ended.code) == (" ".join(words) in FAIL), printed
                    require_shown(each, printed)
                case _:
                    subprocess.run(each.line, shell=True, check=True)  # noqa: S602

        nothing, restored = (
            each
            for page in ("cluster.md", "migrate.md")
            for each in typed(REPOSITORY / "docs" / page, "cluster")
            if each.line.endswith("-c restore")
        )
        require_shown(nothing, restore())
        for page in TYPED_HERE:
            for each in typed(REPOSITORY / page):
                take(each)
        require_shown(restored, restore())
        ask_as_beside_a_cluster(environment["VLLM_URL"])
    require_laid_out_as_shown(Path(read_settings(environment).adapters_dir))


def ask_as_beside_a_cluster(url: str) -> None:
    guide = typed(REPOSITORY / "docs" / "cluster.md", "cluster")
    (words,) = (shlex.split(each.line) for each in guide if " curl " in each.line)
    given = {flag: word for flag, word in pairwise(words) if flag.startswith("-")}
    (asked,) = (word for word in words if word.startswith("http://"))
    kind = dict([given["-H"].split(": ")])
    answer = httpx.post(f"{url}{urlsplit(asked).path}", content=given["-d"], headers=kind)
    assert re.fullmatch(r"mistral-7b-lora-v\d+-[0-9a-f]{12}", answer.json()["model"])


def require_laid_out_as_shown(folder: Path) -> None:
    links = {link: link.readlink() for link in folder.glob("*/*") if link.is_symlink()}
    there = {(masked(str(a.relative_to(folder))), masked(str(b))) for a, b in links.items()}
    page = block("docs/serving.md", "text", "replica").replace("<digest>", "#")
    shown = re.findall(r"(\S+) +-> +(\S+)", page)
    assert len(shown) == 2
    assert {(masked(a), masked(b)) for a, b in shown} <= there
    assert {len([*each.iterdir()]) for each in folder.glob("?" * 64)} == {2}


def test_the_page_of_parameters_is_made_from_the_code() -> None:
    assert parameters.PAGE.read_text() == parameters.page(), (
        "python -m tests.house.parameters --write"
    )


def test_the_pages_draw_the_graph_that_there_is() -> None:
    arrows = []
    for stage, after in pairwise(STAGES.values()):
        gate = f"|{stage.gate.name}| " if stage.gate else " "
        arrows.append(f"  {stage.asset} -->{gate}{after.asset}\n")
    for page in ("README.md", "docs/architecture.md"):
        assert "".join(["graph LR\n", *arrows, "```"]) in (REPOSITORY / page).read_text(), page


def test_a_link_of_a_page_leads_to_a_file_and_its_headline() -> None:
    lost = []
    for page in PAGES:
        for target in re.findall(r"\]\((?!https?:)([^)\s]+)\)", page.read_text()):
            file, _, headline = target.partition("#")
            there = page.parent / file if file else page
            if not there.exists() or (headline and headline not in headlines(there)):
                lost.append((page.name, target))
    assert lost == []


def headlines(page: Path) -> set[str]:
    """Return the anchors that a page has, as GitHub makes them."""
    titles = re.findall(r"^#+ (.*)$", page.read_text(), re.M)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def test_every_page_is_in_the_index() -> None:
    index = (REPOSITORY / "docs" / "README.md").read_text()
    assert [page.name for page in (REPOSITORY / "docs").glob("[a-z]*.md")
            if f"({page.name})" not in index] == []  # fmt: skip


def test_the_judges_instructions_stand_on_its_page() -> None:
    told = (PRODUCT / "judging" / "instructions.txt").read_text().rstrip()
    assert block("docs/judge.md", "text", "instructions").rstrip() == told


def said() -> str:
    """Return every string of the code, a line each, with an ellipsis for what is filled in."""
    lines = []
    for file in files(PRODUCT):
        for node in ast.walk(ast.parse(file.read_text())):
            match node:
                case ast.JoinedStr(values=parts):
                    texts = [p.value if isinstance(p, ast.Constant) else "…" for p in parts]
                    lines.append("".join(map(str, texts)))
                case ast.Constant(value=str(text)):
                    lines.append(text)
    return "\n".join(" ".join(line.split()) for line in lines)


def test_every_message_of_the_troubleshooting_page_is_one_of_the_code() -> None:
    page = (REPOSITORY / "docs" / "troubleshooting.md").read_text()
    messages = re.findall(r"^\| `([^`]*[A-Za-z][^`]*)` \|", page, re.M)
    assert len(messages) > 20
    code = said()
    assert [message for message in messages if message not in code] == []
