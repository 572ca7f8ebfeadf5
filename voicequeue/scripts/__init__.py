"""The Lua scripts: one action a file, loaded once, each led by the shared `lib/record.lua`."""

from __future__ import annotations

from functools import cache
from importlib.resources import files


@cache
def source(name: str) -> str:
    """The whole text of the script called `name`."""
    folder = files(__name__)
    return "\n".join((folder / part).read_text(encoding="utf-8") for part in ("lib/record.lua", f"{name}.lua"))
