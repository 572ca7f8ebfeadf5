"""The result of checking a URL."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import NamedTuple


@dataclass(frozen=True, slots=True)
class Finding:
    """A reason why upstream cannot use a URL. It never quotes the URL.

    `kind`: one word, for counting. `sentence`: what is wrong and how to correct it. `is_certain`: whether the URL can
    never be right; otherwise it only looks wrong.
    """

    kind: str
    sentence: str
    is_certain: bool = True


class Link(NamedTuple):
    """The parts of a URL. `host` is in lower case."""

    host: str
    path: str
    query: str
    fragment: str

    @classmethod
    def parse(cls, url: str) -> Link | None:
        """Return the parts of a valid URL; None if it has another shape."""
        match = _URL.fullmatch(url)
        return cls(match[1].lower(), match[2] or "/", match[3] or "", match[4] or "") if match else None


_URL = re.compile(
    r"https?://(?:[^/?#@]*@)?(\[[^\]]*\]|[^:/?#\\]+)(?::\d*)?([/\\][^?#]*)?(?:\?([^#]*))?(?:#(.*))?", re.I | re.S
)
