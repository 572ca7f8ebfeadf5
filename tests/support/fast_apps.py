"""Build the gateways of tests several times as fast.

Each test has its own gateway. FastAPI analyses the parameters of each route twice, and that was most of the time of a
test, although the results are the same for every gateway.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Hashable
from dataclasses import replace
from types import FunctionType, MethodType
from typing import Any

import fastapi._compat.v2 as fields
import fastapi.dependencies.utils as dependencies
from fastapi import routing
from fastapi.dependencies.models import Dependant
from pydantic import TypeAdapter

_adapters: dict[Hashable, TypeAdapter[Any]] = {}
_signatures: dict[Hashable, inspect.Signature] = {}
#: With the defaults, whose identity is part of the key.
_dependants: dict[Hashable, tuple[Dependant, Any]] = {}
_signature_of: Callable[[Callable[..., Any]], inspect.Signature] = dependencies._get_signature
_dependant_of: Callable[..., Dependant] = dependencies.get_dependant


def _adapter(annotation: Any, *, config: Any = None) -> TypeAdapter[Any]:
    """Return the adapter of a type with its limits, which are in its representation."""
    key = (repr(annotation), repr(config))
    if key not in _adapters:
        _adapters[key] = TypeAdapter(annotation, config=config)
    return _adapters[key]


def _identity(call: Callable[..., Any]) -> tuple[Hashable, ...] | None:
    """Return what functions have in common that differ only in the variables that they enclose; None for others."""
    function = call.__func__ if isinstance(call, MethodType) else call
    if not isinstance(function, FunctionType) or hasattr(function, "__wrapped__") or function.__kwdefaults__:
        return None
    return function.__code__, function.__module__, tuple(map(id, function.__defaults__ or ())), function is call


def _signature(call: Callable[..., Any]) -> inspect.Signature:
    """Return a signature."""
    key = _identity(call)
    if key is None:
        return _signature_of(call)
    if key not in _signatures:
        _signatures[key] = _signature_of(call)
    return _signatures[key]


def _dependant(*, path: str, call: Callable[..., Any], **options: Any) -> Dependant:
    """Return the parameters of a function, which FastAPI may add dependencies to."""
    identity = _identity(call)
    if identity is None:
        return _dependant_of(path=path, call=call, **options)
    key = (identity, path, repr(sorted(options.items())))
    if key not in _dependants:
        _dependants[key] = _dependant_of(path=path, call=call, **options), getattr(call, "__defaults__", None)
    template, _ = _dependants[key]
    return replace(template, call=call, dependencies=[*template.dependencies])


def install() -> None:
    """Keep the results in this process."""
    vars(fields)["TypeAdapter"] = _adapter
    vars(dependencies)["_get_signature"] = _signature
    for module in (dependencies, routing):
        vars(module)["get_dependant"] = _dependant
