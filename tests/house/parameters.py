"""Variables and options as docs/parameters.md: python -m tests.house.parameters --write."""

import re
from collections.abc import Iterator, Sequence

import click

from lora_assets.cli.main import cli
from lora_assets.embedded.server.options import PACKAGED_BASE_MODEL
from lora_assets.setting import Setting
from lora_assets.settings import SETTINGS
from tests.house.rooms import ROOT

PAGE = ROOT / "docs" / "parameters.md"
HEAD = """# Every variable and every parameter

Made from the code by `python -m tests.house.parameters --write`; a test holds it against the code.

## Variables

`LORA_ASSETS_STACK=cluster` takes the cluster's defaults (S3, an MLflow server, vLLM and judge by \
their Services, Prometheus). Each setting has a variable of its own (`<home>` is \
`LORA_ASSETS_HOME`):

| variable | what it says | embedded | cluster |
|---|---|---|---|
"""
COMMANDS = """
## Commands

Every command takes `-q` (`--quiet`: results and errors, and no progress) and `-h`. A stage's \
options are parameters of its Dagster job too, in the launchpad, under the names of its \
assets and checks; a [policy](gates.md#the-policy) takes those of gates and training. In Argo \
`-p name=value` sets the one of the same name.
"""


def page() -> str:
    lines = [*map(_variable, SETTINGS.values()), COMMANDS]
    return HEAD + "\n".join(lines) + "\n".join(_commands("lora-assets", cli)) + "\n"


def _variable(setting: Setting) -> str:
    defaults = [_default(setting.embedded), _default(setting.cluster)]
    return f"| `{setting.variable}` | {setting.help} | {defaults[0]} | {defaults[1]} |"


def _default(default: str) -> str:
    """A default without the folders of this machine."""
    text = default.replace(str(PACKAGED_BASE_MODEL), "<the package>/embedded/base_model")
    text = text.replace("{home_sqlite}", "sqlite:///<home>")
    text = re.sub(r"\{home(_uri)?\}", "<home>", text)
    text = text.format(judge_port=8000, s3_data_bucket="<S3_DATA_BUCKET>")
    return f"`{text}`" if text else ""


def _commands(name: str, command: click.Command) -> Iterator[str]:
    """Yield the lines on a command, or on each command of a group."""
    context = click.Context(command, info_name=name)
    if isinstance(command, click.Group):
        for each in command.list_commands(context):
            found = command.get_command(context, each)
            assert found is not None
            yield from _commands(f"{name} {each}", found)
        return
    first = (command.help or "").split("\n\n")[0].replace("\n", " ")
    yield from ("", f"### `{name}`", "", first, "")
    if name == "lora-assets check":
        yield "Takes the options of every stage, but for `--step`."
        return
    options = [each for each in command.params if isinstance(each, click.Option)]
    if options:
        yield from ("| option | what it says | without it |", "|---|---|---|")
    for option in options:
        said, _, default = _help(option).partition("\0")
        names = ", ".join(f"`{name}`" for name in (*option.opts, *option.secondary_opts))
        yield f"| {names} | {said.strip()}{_choices(option)} | {default} |"


def _help(option: click.Option) -> str:
    """Return what an option says, and after a NUL what stands without it."""
    text = (option.help or "").replace("|", "\\|")
    for pattern in (r"\s*\[default: (.*)\]$", r"; default: (.*)$"):
        if found := re.search(pattern, text):
            return f"{text[: found.start()]}\0{found[1]}"
    if option.required:
        return f"{text}\0refused"
    return f"{text}\0{option.default}" if option.show_default else f"{text}\0"


def _choices(option: click.Option) -> str:
    choices: Sequence[str] = getattr(option.type, "choices", ())
    return f": {', '.join(f'`{each}`' for each in choices)}" if choices else ""


if __name__ == "__main__":
    PAGE.write_text(page())
