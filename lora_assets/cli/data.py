"""data: check what is to become a data version, build one, list those that are there."""

import json
from collections.abc import Mapping, Sequence
from importlib.resources import files as packaged
from itertools import pairwise
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import click

from lora_assets.cli.config_options import chosen, config_options, fields_of
from lora_assets.cli.quiet import Quietable
from lora_assets.cli.result import json_option, print_json, tell, wants_json
from lora_assets.cli.stack import Stack
from lora_assets.embedded.data_set.versions import build as build_version
from lora_assets.embedded.data_set.versions import contents
from lora_assets.errors import LoraAssetsError
from lora_assets.gates.data import DataThresholds, examine
from lora_assets.judging.refusals import declines
from lora_assets.local.instance import add_partitions
from lora_assets.parameters import TrainingOptions
from lora_assets.records.conversion import FORMATS, Format, convert, deal_out
from lora_assets.records.dataset import SPLITS, SplitName, require_version_name
from lora_assets.records.split_file import Fault, parse_split
from lora_assets.settings import read_settings
from lora_assets.stack_resources import make_resources

Fit = fields_of(TrainingOptions, "max_seq_length", "max_left_out")


@click.group(cls=Quietable)
def data() -> None:
    """Describe, check, build and list data versions.

    A data version is an immutable folder of train.jsonl, val.jsonl and eval.jsonl.
    """


@data.command()
@json_option
@click.option("--data-version", required=True, help="Name of the new data version")
@click.option("--services", required=True, help="AWS services, as in s3,ec2,lambda")
@click.option(
    "--spoiled", is_flag=True, help="Answers that don't come from their context, for trying gates"
)
def build(data_version: str, services: str, spoiled: bool) -> None:
    """Write a data version from botocore's service models.

    The same services give the same bytes every time.
    """
    names = [name.strip() for name in services.split(",") if name.strip()]
    stack = Stack({})
    data_bucket = stack.resources.data_bucket
    bucket = urlsplit(data_bucket.uri)
    if bucket.scheme == "file":
        place = str(build_version(data_version, names, Path(unquote(bucket.path)), spoiled))
    else:
        place = data_bucket.add(data_version, contents(names, spoiled))
    _added(stack, data_version, place, ())


@data.command()
def describe() -> None:
    """Print the format of a data version, with three rows."""
    click.echo(packaged(__package__).joinpath("data_format.txt").read_text(), nl=False)


@data.command()
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@json_option
@config_options(DataThresholds, Fit)
def check(folder: Path, **options: Any) -> None:
    """Print every fault of the data in DIR: file, line and field.

    End with 1 where training would be refused. The rows are measured by the tokenizer of
    BASE_MODEL, and against the max_model_len of the server at VLLM_URL.
    """
    _require_there(folder)
    files = {split: folder / f"{split}.jsonl" for split in SPLITS}
    contents = {split: file.read_bytes() for split, file in files.items() if file.is_file()}
    faults, notes = _examined(contents, options)
    _require_sound(folder, faults, notes, "'lora-assets data describe' prints the format.")
    print_json({"faults": [], "notes": notes})
    click.echo(f"{folder} is sound", err=True)


@data.command()
@click.argument("source", metavar="DIR", type=click.Path(path_type=Path))
@json_option
@click.option("--data-version", required=True, help="Name of the new data version")
@click.option(
    "--format",
    "form",
    type=click.Choice(FORMATS),
    default=None,
    help="Format of the files; default: detected from each row's fields",
)
@config_options(DataThresholds, Fit)
def add(source: Path, data_version: str, form: Format | None, **options: Any) -> None:
    """Make the files in DIR, or one file, a data version, if sound.

    One file is dealt out to the three splits, 8 : 1 : 1, the same way every time.
    """
    require_version_name(data_version)
    _require_there(source)
    files = [source] if source.is_file() else sorted(source.glob("[!.]*.json*"))
    left_out = [file.name for file in files if len(files) > 1 and file.stem not in SPLITS]
    files = [file for file in files if file.name not in left_out]
    for one, other in pairwise(files):
        if one.stem == other.stem:
            raise LoraAssetsError(f"{source} has {one.name} and {other.name}", "Keep one of them.")
    rows = {file.stem: convert(str(file), file.read_bytes(), form, declines) for file in files}
    faults: Sequence[str] = ()
    if len(files) == 1 and not left_out:
        # Before they are dealt out: then a line is that of the file.
        (whole,) = rows.values()
        faults = [str(each) for each in parse_split("train", _lines(whole))[1]]
        faults = [f"{files[0].name}{fault.removeprefix('train.jsonl')}" for fault in faults]
        rows = {str(name): dealt for name, dealt in deal_out(whole).items()}
    contents = {split: _lines(rows[split]) for split in SPLITS if split in rows}
    notes: Sequence[str] = ()
    if not faults:
        faults, notes = _examined(contents, options)
    notes = [*notes, *(f"{name} is left out: it is none of the splits" for name in left_out)]
    _require_sound(source, faults, notes, "Nothing was added: correct the data first.")
    stack = Stack({})
    place = stack.resources.data_bucket.add(data_version, contents)
    _added(stack, data_version, place, notes)


def _added(stack: Stack, data_version: str, place: str, notes: Sequence[str]) -> None:
    """Say where a new data version is; make it a partition of the Dagster on this machine."""
    if stack.settings.embedded:
        add_partitions(stack.open_instance(), [data_version])
    tell(f"data version {data_version} is in {place}")
    print_json({"data_version": data_version, "place": place, "faults": [], "notes": notes})
    click.echo(f"next: lora-assets train --data-version {data_version}", err=True)


def _examined(
    contents: Mapping[SplitName, bytes], options: Mapping[str, Any]
) -> tuple[Sequence[str], Sequence[str]]:
    """Return every fault, and what is only noted.

    Rows that the base model or the server can't take are faults; what can't be told from here is
    noted.
    """
    found, notes = examine(contents, DataThresholds(**chosen(DataThresholds, options)))
    resources = make_resources(read_settings())
    config = TrainingOptions(**chosen(Fit, options))
    limit = resources.trainer.parameters(config.overrides()).max_seq_length
    max_model_len, unknown = resources.fleet.longest()
    rows = {split: parse_split(split, content)[0] for split, content in contents.items()}
    misfits: Sequence[Fault] = ()
    try:
        misfits = resources.trainer.misfits(rows, limit, max_model_len, config.max_left_out)
    except LoraAssetsError as error:
        unknown = f"rows are not measured, and the tokenizer's own tokens not known ({error.cause})"
    return [*found, *map(str, misfits)], [*notes, *([unknown] if unknown else ())]


def _lines(rows: Sequence[Mapping[str, Any]]) -> bytes:
    return "".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in rows).encode(
        errors="surrogatepass"
    )


@data.command("list")
@json_option
def list_versions() -> None:
    """Print the data versions, and what is passed over and why."""
    versions, passed_over = make_resources(read_settings()).data_bucket.survey()
    tell(f"data versions: {', '.join(versions) or 'none yet'}")
    for name, reason in passed_over.items():
        tell(f"passed over: {name} {reason}")
    print_json({"data_versions": versions, "passed_over": passed_over})


def _require_there(path: Path) -> None:
    if not path.exists():
        raise LoraAssetsError(f"{path} does not exist", "Correct the path.")


def _require_sound(path: Path, faults: Sequence[str], notes: Sequence[str], remedy: str) -> None:
    """Print every fault and note, a line each, and refuse data with a fault."""
    for line in () if wants_json() else (*faults, *(f"note: {note}" for note in notes)):
        click.echo(line)
    if faults:
        print_json({"faults": faults, "notes": notes})
        raise LoraAssetsError(f"Faults in {path}: {len(faults)}", remedy)
