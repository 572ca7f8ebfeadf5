"""The option `--namespace`, which every command that opens the queue has."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from contextvars import ContextVar
from functools import wraps
from typing import Annotated, Any, get_type_hints

import typer

#: The namespace that the command line names; None if it names none.
_NAMED: ContextVar[str | None] = ContextVar("namespace", default=None)

NamespaceOption = Annotated[
    str | None,
    typer.Option(
        "--namespace",
        metavar="NAME",
        envvar="VOICEQUEUE_NAMESPACE",
        show_envvar=False,
        help="Act in this namespace only; * is all. Default: * (new jobs: the namespace without a name).",
    ),
]


def with_namespace(command: Callable[..., None]) -> Callable[..., None]:
    """Return the command with the option `--namespace`, which `namespace_or` reads."""
    signature, hints = inspect.signature(command), get_type_hints(command, include_extras=True)
    option = inspect.Parameter("namespace", inspect.Parameter.KEYWORD_ONLY, default=None, annotation=NamespaceOption)

    @wraps(command)
    def run(*, namespace: str | None, **options: Any) -> None:
        token = _NAMED.set(namespace)
        try:
            command(**options)
        finally:
            _NAMED.reset(token)

    own = [parameter.replace(annotation=hints[name]) for name, parameter in signature.parameters.items()]
    run.__annotations__ = {**hints, "namespace": NamespaceOption}
    run.__signature__ = signature.replace(parameters=[*own, option])  # type: ignore[attr-defined]
    return run


def namespace_or(default: str) -> str:
    """Return the namespace that the command line or the environment names, otherwise the default."""
    named = _NAMED.get()
    return default if named is None else named
