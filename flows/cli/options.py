"""Options of a command from the fields of a request: name, type, default and help are written once, in the request."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Mapping
from functools import wraps
from typing import Annotated, Any, TypeVar, get_args

import typer
from pydantic import BaseModel

__all__ = ["described", "request_options"]

F = TypeVar("F", bound=Callable[..., Any])


def described(model: type[BaseModel], field: str) -> str:
    """Return the description of a field in one line."""
    return " ".join((model.model_fields[field].description or "").split())


def request_options(
    request: type[BaseModel], *, only: Collection[str] | None = None, metavars: Mapping[str, str] | None = None
) -> Callable[[F], F]:
    """Give a command one option for each field of a request; the command receives them in its `**fields`.

    Fields that the command declares itself are left out. A required field has no default: the request, which
    validates all of them, says in a sentence what is missing.

    Args:
        request: the model.
        only: the fields to offer; all by default.
        metavars: how a value is written, by field.
    """

    def decorate(command: F) -> F:
        own = inspect.signature(command, eval_str=True)
        kept = [item for item in own.parameters.values() if item.kind is not inspect.Parameter.VAR_KEYWORD]
        names = [name for name in request.model_fields if name not in own.parameters and (only is None or name in only)]
        options = [_option(request, name, (metavars or {}).get(name)) for name in names]
        arguments = [item for item in kept if item.default is inspect.Parameter.empty]
        parameters = [*arguments, *options, *(item for item in kept if item not in arguments)]
        parameters = [item.replace(kind=inspect.Parameter.KEYWORD_ONLY) for item in parameters]

        @wraps(command)
        def run(**values: Any) -> Any:
            return command(**values)

        vars(run)["__signature__"] = own.replace(parameters=parameters)
        run.__annotations__ = {item.name: item.annotation for item in parameters}
        return run  # type: ignore[return-value]  # a function of the same name, with the options spelt out

    return decorate


def _option(request: type[BaseModel], name: str, metavar: str | None) -> inspect.Parameter:
    field, help_text = request.model_fields[name], described(request, name)
    kinds = {field.annotation, *get_args(field.annotation)}
    default = None if field.is_required() else field.default
    if field.annotation is bool:  # a flag alone, without its --no- counterpart
        annotation: Any = Annotated[bool, typer.Option(f"--{name.replace('_', '-')}", help=help_text)]
    elif Ellipsis in get_args(field.annotation):  # a tuple of any length: an option that may be repeated
        annotation, default = Annotated[list[str] | None, typer.Option(metavar=metavar, help=help_text)], None
    else:
        kind: Any = next((kind for kind in (int, float) if kind in kinds), str)
        kind = kind if default is not None else kind | None
        annotation = Annotated[kind, typer.Option(metavar=metavar, help=help_text)]
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)
