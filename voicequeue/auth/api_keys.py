"""API keys of the HTTP gateway. Only their hashes are configured. Pure.

An entry of the setting is `name:scope+scope:hash`, or `name@namespace:scope+scope:hash` for a key that acts in one
namespace only; entries are separated by commas. A key encodes 32 random bytes, so a
plain SHA-256 reveals nothing about it and is fast to compare.
"""

from __future__ import annotations

import hmac
import re
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from hashlib import sha256

from voicequeue.domain.namespaces import ALL, namespace_name

#: The prefix of every key, by which scanners for leaked secrets recognize it.
KEY_PREFIX = "vq_"

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_HASH = re.compile(r"[0-9a-f]{64}")


class Scope(StrEnum):
    """A permission of a key; none includes another."""

    ENQUEUE = "enqueue"
    READ = "read"
    OPERATE = "operate"
    REVIEW = "review"
    ADMIN = "admin"


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key as it is configured.

    Attributes:
        name: Name of its holder.
        scopes: What it may do.
        digest: Its hash.
        namespace: Namespace that it acts in; `*` for an operator's key.
    """

    name: str
    scopes: frozenset[Scope]
    digest: str
    namespace: str = ALL

    def as_setting(self) -> str:
        """Return the key's entry for the setting."""
        holder = self.name if self.namespace == ALL else f"{self.name}@{self.namespace}"
        return f"{holder}:{'+'.join(scope for scope in Scope if scope in self.scopes)}:{self.digest}"


def generate_key(name: str, scopes: Iterable[Scope]) -> tuple[str, ApiKey]:
    """Return a new key, which is not stored, and its configuration. Raises ValueError."""
    key = KEY_PREFIX + secrets.token_urlsafe(32)
    return key, parse_key(ApiKey(name, frozenset(scopes), hash_key(key)).as_setting())


def parse_keys(setting: str) -> tuple[ApiKey, ...]:
    """Parse the setting. Raises ValueError, whose text contains no hash."""
    keys = tuple(parse_key(line.strip()) for line in setting.split(",") if line.strip())
    names = [key.name for key in keys]
    if duplicates := {name for name in names if names.count(name) > 1}:
        raise ValueError(f"{min(duplicates)!r} occurs twice; each key needs its own name")
    return keys


def parse_key(line: str) -> ApiKey:
    """Parse one entry. Raises ValueError."""
    holder, _, rest = line.partition(":")
    name, at, namespace = holder.partition("@")
    scopes, _, digest = rest.partition(":")
    if line.startswith(KEY_PREFIX) or not _NAME.fullmatch(name):
        # Not quoted: it may be a whole key instead of its entry.
        raise ValueError(
            "a key's name must be 1 to 64 of the letters A-Z and a-z, digits, '.', '_' and '-'; "
            "each key is name:scope+scope:hash, as `voicequeue keys new` prints it"
        )
    if not (names := set(scopes.split("+"))) <= set(Scope):
        raise ValueError(f"the scopes of {name!r} must be of {', '.join(Scope)}, joined by +")
    if not _HASH.fullmatch(digest):
        raise ValueError(f"the hash of {name!r} must be 64 hex digits, as `voicequeue keys new` prints it")
    try:
        namespace = namespace_name(namespace) if at else ALL
    except ValueError as error:
        raise ValueError(f"the namespace of {name!r}: {error}") from None
    return ApiKey(name, frozenset(map(Scope, names)), digest, namespace)


def hash_key(key: str) -> str:
    """Return the hash that is configured for a key."""
    return sha256(key.encode(errors="surrogateescape")).hexdigest()


def find_key(keys: Iterable[ApiKey], presented: str) -> ApiKey | None:
    """Return the configured key that matches, None if there is none. Takes the same time in every case."""
    digest, match = hash_key(presented), None
    for key in keys:
        if hmac.compare_digest(key.digest, digest):
            match = key
    return match
