"""Errors of the client's arguments as errors of the request."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from voicequeue import InvalidJobError, Problem

T = TypeVar("T")


def checked(call: Callable[[], T], field: str = "") -> T:
    """Return the result of a call. Raises InvalidJobError for its ValueError, which may name another field."""
    try:
        return call()
    except ValueError as error:
        name, separator, message = str(error).partition(": ")
        is_named = bool(separator) and name.replace("_", "").isalpha()
        raise InvalidJobError([Problem(name, message) if is_named else Problem(field, str(error))]) from None
