"""The keys of one queue in one Redis, and the execution of its scripts."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, cast

from redis import Redis

from voicequeue.domain.namespaces import ALL, DEFAULT, Scope, index_of
from voicequeue.storage import scripts
from voicequeue.texts import replace_unencodable

DEFAULT_PREFIX = "voicequeue"

_PAGE = 500

#: A valid prefix: the hash tag of every key.
PREFIX = r"[A-Za-z0-9_.-]{1,40}"


def celery_root(prefix: str) -> str:
    """Return the prefix of all keys and channels of Celery; queues that share a Redis have none in common."""
    return f"{{{prefix}}}:celery:"


class Keyspace:
    """The keys under one prefix; scripts/lib/keys.lua lists them. `namespace` is the scope of reads (`*`: all).

    `replicas_ack` is the number of replicas that must have recorded what callers change, and what `run_acknowledged`
    writes.
    """

    def __init__(
        self, redis: Redis, prefix: str = DEFAULT_PREFIX, namespace: str = ALL, *, replicas_ack: int = 0
    ) -> None:
        if not re.fullmatch(PREFIX, prefix):
            raise ValueError("the prefix must be 1 to 40 of the letters A-Z and a-z, digits, '.', '_' and '-'")
        self.redis = redis
        self.prefix = prefix
        self.scope = Scope(namespace)
        self.replicas_ack = replicas_ack
        self._root = f"{{{prefix}}}:"

    def key(self, name: str) -> str:
        """Return the full key for a name."""
        return self._root + replace_unencodable(name)

    def check_writable(self) -> None:
        """Send Redis a write that changes nothing. Raises RedisRefusalError if Redis accepts no writes."""
        self.redis.setrange(self.key("nothing"), 0, "")

    def namespaces(self) -> list[str]:
        """Return the namespaces in scope that may have jobs, the default one first."""
        if not self.scope.is_all:
            return [self.scope.namespace]
        return [DEFAULT, *cast(list[str], self.redis.zrange(self.key("namespaces"), 0, -1))]

    def indexes(self, name: str) -> list[str]:
        """Return the full keys of an index that each namespace has of its own, of those in scope."""
        return [self.key(index_of(name, namespace)) for namespace in self.namespaces()]

    def run_script(self, script: str, *arguments: str | float) -> Any:
        """Run a script; its header describes its arguments and its reply."""
        return scripts.run(self.redis, script, self._root, *arguments)

    def run_acknowledged(self, script: str, *arguments: str | float) -> tuple[Any, bool]:
        """Run a script; return its reply, and whether enough replicas have recorded what it wrote."""
        if not self.replicas_ack:
            return self.run_script(script, *arguments), True
        return scripts.run_acknowledged(self.redis, self.replicas_ack, script, self._root, *arguments)

    def run_change(self, script: str, *arguments: str | float, within_s: float = 0.0) -> Any:
        """Run a script that changes something for callers, and record it in the audit log if a caller is named.

        It is run again for `within_s` seconds until enough replicas have recorded what it wrote.
        """
        return scripts.run_change(
            self.redis, script, self._root, *arguments, replicas=self.replicas_ack, within_s=within_s
        )

    def confirm(self) -> None:
        """Wait until enough replicas have what was written before. Raises RedisRefusalError."""
        if self.replicas_ack:
            scripts.confirm(self.redis, self._root, self.replicas_ack)

    def prepare_script(self, script: str, *arguments: str | float) -> scripts.ScriptCall:
        """Return a call of a script that runs while its caller does something else."""
        return scripts.ScriptCall(self.redis, script, self._root, *arguments, replicas=self.replicas_ack)

    def pages(self, key: str, *, latest_first: bool = False) -> Iterator[str]:
        """Yield the members of a sorted set by score, page by page; complete for members that stay, if it changes."""
        return (member for member, _ in self.scored_pages(key, latest_first=latest_first))

    def scored_pages(
        self, key: str, *, latest_first: bool = False, after: tuple[str, float] | None = None
    ) -> Iterator[tuple[str, float]]:
        """Yield the members of a sorted set with their scores, as `pages` does; those that follow the entry `after`."""
        cursor, end = ("+inf", "-inf") if latest_first else ("-inf", "+inf")
        cursor = cursor if after is None else repr(after[1])
        yielded: set[str] = set()  # members with the cursor's score
        while True:
            limit = _PAGE + len(yielded)
            page = cast(
                list[tuple[str, float]],
                self.redis.zrange(
                    key, cursor, end, desc=latest_first, withscores=True, byscore=True, offset=0, num=limit
                ),
            )
            fresh = [entry for entry in page if entry[0] not in yielded]
            if not fresh:
                return
            yield from (entry for entry in fresh if _follows(entry, after, latest_first=latest_first))
            last = page[-1][1]
            yielded = {member for member, score in page if score == last}
            cursor = repr(last)


def _follows(entry: tuple[str, float], after: tuple[str, float] | None, *, latest_first: bool) -> bool:
    """Return whether an entry of a sorted set follows another one; those of one score are in lexicographical order."""
    if after is None:
        return True
    own, other = entry[::-1], after[::-1]
    return own < other if latest_first else own > other


def rows(flat: list[str], width: int) -> Iterator[tuple[str, ...]]:
    """Split the flat list of a script into rows of `width` values."""
    return zip(*[iter(flat)] * width, strict=True)
