"""Build the gateways of tests four times as fast.

Each test has its own gateway. FastAPI describes its routes twice, and that was most of the time of a test, although the
descriptions are the same for every gateway.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Hashable
from types import FunctionType
from typing import Any

import fastapi._compat.v2 as fields
import fastapi.dependencies.utils as dependencies
from pydantic import TypeAdapter

_adapters: dict[Hashable, TypeAdapter[Any]] = {}
_signatures: dict[Hashable, inspect.Signature] = {}
_signature_of: Callable[[Callable[..., Any]], inspect.Signature] = dependencies._get_signature


def _adapter(annotation: Any, *, config: Any = None) -> TypeAdapter[Any]:
    """Return the adapter of a type with its limits, which are in its representation."""
    key = (repr(annotation), repr(config))
    if key not in _adapters:
        _adapters[key] = TypeAdapter(annotation, config=config)
    return _adapters[key]


def _signature(call: Callable[..., Any]) -> inspect.Signature:
    """Return a signature. Functions that differ only in the variables that they enclose have the same."""
    if not isinstance(call, FunctionType) or hasattr(call, "__wrapped__") or call.__kwdefaults__:
        return _signature_of(call)
    key = (call.__code__, call.__module__, tuple(map(id, call.__defaults__ or ())))
    if key not in _signatures:
        _signatures[key] = _signature_of(call)
    return _signatures[key]


def install() -> None:
    """Keep the descriptions in this process."""
    vars(fields)["TypeAdapter"] = _adapter
    vars(dependencies)["_get_signature"] = _signature
