"""API keys of the HTTP gateway: made here, of which only hashes are configured. Pure.

A line of the setting is `name:scope+scope:hash`, several are separated by commas. A key is 32 random bytes
as text, so a plain SHA-256 says nothing of it and is quick to compare.
"""

from __future__ import annotations

import hmac
import re
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from hashlib import sha256

#: What every key begins with, so that scanners for leaked secrets know it.
MARK = "vq_"

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_HASH = re.compile(r"[0-9a-f]{64}")


class Scope(StrEnum):
    """What a key may do; none includes another."""

    ENQUEUE = "enqueue"
    READ = "read"
    OPERATE = "operate"


@dataclass(frozen=True, slots=True)
class ApiKey:
    """One key as it is configured: whose it is, what it may do, and its hash."""

    name: str
    scopes: frozenset[Scope]
    digest: str

    def line(self) -> str:
        """As it stands in the setting."""
        return f"{self.name}:{'+'.join(scope for scope in Scope if scope in self.scopes)}:{self.digest}"


def new(name: str, scopes: Iterable[Scope]) -> tuple[str, ApiKey]:
    """A key, which is told this once, and what is configured of it. Raises ValueError."""
    key = MARK + secrets.token_urlsafe(32)
    return key, parse_one(ApiKey(name, frozenset(scopes), digest_of(key)).line())


def parse(setting: str) -> tuple[ApiKey, ...]:
    """The keys that a setting names. Raises ValueError, whose text quotes no hash."""
    keys = tuple(parse_one(line.strip()) for line in setting.split(",") if line.strip())
    names = [key.name for key in keys]
    if twice := {name for name in names if names.count(name) > 1}:
        raise ValueError(f"{min(twice)!r} is there twice; each key has a name of its own")
    return keys


def parse_one(line: str) -> ApiKey:
    """The key that one line describes. Raises ValueError."""
    name, _, rest = line.partition(":")
    scopes, _, digest = rest.partition(":")
    if line.startswith(MARK) or not _NAME.fullmatch(name):
        # Not quoted: a whole key may have been put there instead of its line.
        raise ValueError(
            "a key's name must be 1 to 64 of the letters A-Z and a-z, digits, '.', '_' and '-'; "
            "each key is name:scope+scope:hash, as `voicequeue keys new` prints it"
        )
    if not (given := set(scopes.split("+"))) <= set(Scope):
        raise ValueError(f"the scopes of {name!r} must be of {', '.join(Scope)}, joined by +")
    if not _HASH.fullmatch(digest):
        raise ValueError(f"the hash of {name!r} must be 64 hex digits, as `voicequeue keys new` prints it")
    return ApiKey(name, frozenset(map(Scope, given)), digest)


def digest_of(key: str) -> str:
    """What is configured of a key."""
    return sha256(key.encode(errors="surrogateescape")).hexdigest()


def holder(keys: Iterable[ApiKey], given: str) -> ApiKey | None:
    """Whose key it is; None if nobody's. Takes the same time whichever it is, and if it is none."""
    digest, found = digest_of(given), None
    for key in keys:
        if hmac.compare_digest(key.digest, digest):
            found = key
    return found
