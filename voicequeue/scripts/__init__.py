"""The Lua scripts: one action a file, loaded once, each led by the shared ones in `lib/`."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from hashlib import sha1
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from redis.exceptions import NoScriptError

if TYPE_CHECKING:
    from collections.abc import Callable

    from redis import Redis

#: In this order: each relies on those before it.
_SHARED = tuple(
    f"lib/{name}.lua" for name in ("keys", "line", "flow", "callbacks", "archive", "move", "voices", "walk")
)

#: What each does at last.
_END = "local outcome = action() write_sums() return outcome"


@dataclass(frozen=True, slots=True)
class Script:
    """A script's whole text, and the name that Redis knows it by."""

    source: str
    sha: str


@cache
def load(name: str) -> Script:
    """The script called `name`."""
    folder = files(__name__)
    *shared, action = ((folder / part).read_text(encoding="utf-8") for part in (*_SHARED, f"{name}.lua"))
    source = "\n".join((*shared, "local function action()", action, "end", _END))
    return Script(source, sha1(source.encode(), usedforsecurity=False).hexdigest())


def run(redis: Redis, name: str, root: str, *arguments: str | float) -> Any:
    """What the script called `name` returns; `root` is what every key begins with."""
    script = load(name)
    command: Callable[..., Any] = redis.execute_command
    given = [encodable(each) if isinstance(each, str) else each for each in arguments]
    try:
        return command("EVALSHA", script.sha, 1, root, *given)
    except NoScriptError:  # a Redis that has not seen it yet, or was restarted
        return command("EVAL", script.source, 1, root, *given)


def encodable(text: str) -> str:
    """`text`, with '?' for what UTF-8 has no bytes for: half a pair in upstream's words, an odd id."""
    return text if text.isascii() else text.encode(errors="replace").decode()
