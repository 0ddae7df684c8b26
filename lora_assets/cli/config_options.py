"""Command-line options made from the fields of the configuration that they set."""

import types
from collections.abc import Callable, Mapping
from typing import Any, TypeVar, Union, get_args, get_origin

import click
from pydantic import BaseModel, ValidationError, create_model
from pydantic.fields import FieldInfo

from lora_assets.cli.completions import OF_FIELDS, switch
from lora_assets.errors import LoraAssetsError, validation_line

Command = TypeVar("Command", bound=Callable[..., Any])


def config_options(*models: type[BaseModel]) -> Callable[[Command], Command]:
    """Add an option for each field: `max_eval_loss` becomes --max-eval-loss, with its default.

    An option of several models says what it is, and what stands without it, for each of them.
    """

    def decorate(command: Command) -> Command:
        fields: dict[str, list[FieldInfo]] = {}
        for model in models:
            for name, field in model.model_fields.items():
                fields.setdefault(name, []).append(field)
        for name, alike in reversed(fields.items()):
            kind = _plain_type(alike[0].annotation)
            said = "; also: ".join(dict.fromkeys(field.description or "" for field in alike))
            defaults = dict.fromkeys(str(f.default) for f in alike if f.default is not None)
            default = f"  [default: {', '.join(defaults)}]" if defaults else ""
            # Argo gives every option a value: --fresh is --fresh=true.
            flag: dict[str, Any] = {"is_flag": False, "flag_value": "true"} if kind is bool else {}
            command = click.option(
                f"--{name.replace('_', '-')}",
                name,
                type=kind,
                default=None,
                help=f"{said}{default}",
                shell_complete=switch if kind is bool else OF_FIELDS.get(name),
                **flag,
            )(command)
        return command

    return decorate


def fields_of(model: type[BaseModel], *names: str) -> type[BaseModel]:
    """Return a model with these fields of `model` alone."""
    fields = {name: model.model_fields[name] for name in names}
    typed = {name: (field.annotation, field) for name, field in fields.items()}
    return create_model(model.__name__, **typed)  # type: ignore[call-overload, no-any-return]


def chosen(model: type[BaseModel], options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options given for the fields of `model`; raise for an impossible value."""
    given = {name: options[name] for name in model.model_fields if options.get(name) is not None}
    try:
        model(**given)
    except ValidationError as error:
        name = str(error.errors()[0]["loc"][0])
        option = f"--{name.replace('_', '-')}"
        raise LoraAssetsError(
            f"{option} {given[name]} is not possible ({validation_line(error)})",
            f"Correct {option}.",
        ) from None
    return given


def _plain_type(annotation: Any) -> Any:
    """Return the type that a field has apart from None."""
    if get_origin(annotation) in (Union, types.UnionType):
        (annotation,) = (a for a in get_args(annotation) if a is not type(None))
    return annotation
