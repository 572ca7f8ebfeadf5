"""The Lua scripts: one action a file, loaded once, each led by the shared ones in `lib/`."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from hashlib import sha1
from importlib.resources import files

#: In this order: each relies on those before it.
_SHARED = ("lib/keys.lua", "lib/line.lua", "lib/flow.lua", "lib/move.lua")


@dataclass(frozen=True, slots=True)
class Script:
    """A script's whole text, and the name that Redis knows it by."""

    source: str
    sha: str


@cache
def load(name: str) -> Script:
    """The script called `name`."""
    folder = files(__name__)
    source = "\n".join((folder / part).read_text(encoding="utf-8") for part in (*_SHARED, f"{name}.lua"))
    return Script(source, sha1(source.encode(), usedforsecurity=False).hexdigest())
