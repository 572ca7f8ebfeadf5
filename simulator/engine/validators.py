"""Validators for the values of dials, with descriptions of what they allow."""

import math
import sys
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple, TypeGuard


class Check(NamedTuple):
    """A validator. `accepts` checks a value as JSON gives it; `allowed` completes the sentence "it must be ..."."""

    allowed: str
    accepts: Callable[[object], bool]


def number(low: float = 0, high: float = math.inf) -> Check:
    """Allow a finite number within low..high, both included."""
    bounds = f"at least {low:g}" if math.isinf(high) else f"from {low:g} to {high:g}"
    return Check(f"a number, {bounds}", lambda value: _is_number(value) and low <= value <= high)


def whole(low: int = 0) -> Check:
    """Allow a whole number of at least `low`."""
    return Check(f"a whole number, at least {low}", lambda value: _is_whole(value) and value >= low)


def choice(*names: str) -> Check:
    """Allow one of these names."""
    return Check("one of " + ", ".join(names), lambda value: value in names)


def flag() -> Check:
    """Allow true or false."""
    return Check("true or false", lambda value: isinstance(value, bool))


def text() -> Check:
    """Allow a string that is not empty."""
    return Check("a string that is not empty", lambda value: isinstance(value, str) and bool(value))


def or_null(check: Check) -> Check:
    """Allow what the check allows, or null."""
    return Check(f"{check.allowed}, or null", lambda value: value is None or check.accepts(value))


def odds(names: Iterable[str]) -> Check:
    """Allow an object of probabilities by name, together at most 1."""
    allowed_names = frozenset(names)
    allowed = f"an object of name: probability, together at most 1, with names of {', '.join(sorted(allowed_names))}"
    return Check(allowed, lambda value: isinstance(value, Mapping) and _are_odds(value, allowed_names))


def _are_odds(value: Mapping[object, object], names: frozenset[str]) -> bool:
    shares = [share for share in value.values() if _is_number(share) and 0 <= share <= 1]
    # The margin allows rounding errors, such as the sum of ten times 0.1.
    return names.issuperset(value) and len(shares) == len(value) and sum(shares) <= 1 + 1e-9


def _is_number(value: object) -> TypeGuard[float]:
    # In Python true is an int, and the JSON parser accepts Infinity, NaN and numbers too large for a float.
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max


def _is_whole(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool)
