"""Songs with a value in every field, so that a test of all fields covers new ones by itself."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from voicequeue import ArchivedFile, Clip

_BY_TYPE: dict[str, Any] = {"float | None": 61.5}


def full_clip(**values: Any) -> Clip:
    """Return a song whose fields all have values that occur nowhere else; `values` replaces some."""
    return Clip(**{**{field.name: _value(field.name, str(field.type)) for field in fields(Clip)}, **values})


def _value(name: str, kind: str) -> Any:
    if name == "state":
        return "succeeded"
    if kind.startswith("ArchivedFile"):
        return ArchivedFile(f"https://archive.example/{name}", 1_000, "5" * 64)
    if name.endswith("_url"):
        return f"https://cdn.example/{name}"
    return _BY_TYPE.get(kind, f"the-{name}")


def clip_values(clip: Clip) -> dict[str, Any]:
    """Return the fields that have a value, by name."""
    return {field.name: value for field in fields(Clip) if (value := getattr(clip, field.name)) is not None}
