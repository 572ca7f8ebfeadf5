"""The keys of one queue in one Redis, and how its scripts are run there."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, cast

from redis import Redis

from voicequeue.storage import scripts
from voicequeue.texts import mended

DEFAULT_PREFIX = "voicequeue"

_PAGE = 500

#: What may stand in a key's hash tag.
PREFIX = r"[A-Za-z0-9_.-]{1,40}"


def celery_root(prefix: str) -> str:
    """Return the prefix of all keys and channels of Celery; queues that share a Redis have none in common."""
    return f"{{{prefix}}}:celery:"


class Keyspace:
    """All that lies under one prefix; scripts/lib/keys.lua tells what that is."""

    def __init__(self, redis: Redis, prefix: str = DEFAULT_PREFIX) -> None:
        if not re.fullmatch(PREFIX, prefix):
            raise ValueError("the prefix must be 1 to 40 of the letters A-Z and a-z, digits, '.', '_' and '-'")
        self.redis = redis
        self._root = f"{{{prefix}}}:"

    def key(self, name: str) -> str:
        """The key of that name."""
        return self._root + mended(name)

    def run(self, script: str, *arguments: str | float) -> Any:
        """Run a script; what it returns stands in its header."""
        return scripts.run(self.redis, script, self._root, *arguments)

    def call(self, script: str, *arguments: str | float) -> scripts.Call:
        """A script that is run while its caller does something else."""
        return scripts.Call(self.redis, script, self._root, *arguments)

    def pages(self, key: str, *, latest_first: bool = False) -> Iterator[str]:
        """Every member of a sorted set by its score, a page at a time, though it change meanwhile."""
        cursor, end = ("+inf", "-inf") if latest_first else ("-inf", "+inf")
        told: set[str] = set()  # members already told that share the cursor's score
        while True:
            page = cast(
                list[tuple[str, float]],
                self.redis.zrange(
                    key, cursor, end, desc=latest_first, withscores=True, byscore=True, offset=0, num=_PAGE + len(told)
                ),
            )
            fresh = [member for member, _ in page if member not in told]
            if not fresh:
                return
            yield from fresh
            last = page[-1][1]
            told = {member for member, score in page if score == last}
            cursor = repr(last)


def rows(flat: list[str], width: int) -> Iterator[tuple[str, ...]]:
    """A script's flat list, so many values at a time."""
    return zip(*[iter(flat)] * width, strict=True)
