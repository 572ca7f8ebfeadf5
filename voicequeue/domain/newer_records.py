"""Records that a newer release has written: what this release does not know is kept, and shown as it is.

docs/guides/upgrading.md describes what releases promise each other.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields
from enum import StrEnum
from typing import Any, TypeVar

E = TypeVar("E", bound=StrEnum)


def stored(kind: type[E], text: str) -> E:
    """Return the member of a stored value. A value of a newer release is a member of that name, which is not listed."""
    try:
        return kind(text)
    except ValueError:
        member = str.__new__(kind, text)
        member._name_ = member._value_ = text
        return member


def is_listed(member: StrEnum) -> bool:
    """Return whether this release knows the value."""
    return member.value in type(member)._value2member_map_


def known_fields(kind: Any, record: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of a record that the dataclass has."""
    return {field.name: record[field.name] for field in fields(kind) if field.name in record}


def with_unknown_fields(record: Mapping[str, Any], before: str) -> dict[str, Any]:
    """Return a record, with those fields of its predecessor (JSON; '' for none) that it does not have."""
    earlier = json.loads(before) if before else {}
    return {**earlier, **record}
