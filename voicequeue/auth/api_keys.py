"""Secrets of API keys, and keys of the environment. Only hashes are stored and configured. Pure.

An entry of the setting is `name:scope+scope:hash`, or `name@namespace:scope+scope:hash` for a key that acts in one
namespace only; entries are separated by commas. A key encodes 32 random bytes, so a plain SHA-256 reveals nothing about
it and is fast to compare.
"""

from __future__ import annotations

import hmac
import re
import secrets
from collections.abc import Iterable
from hashlib import sha256

from voicequeue.domain.api_keys import ApiKey, Scope
from voicequeue.domain.namespaces import ALL, namespace_name

__all__ = ["ApiKey", "Scope", "find_key", "generate_key", "generate_secret", "hash_key", "parse_key", "parse_keys"]

#: The prefix of every key, by which scanners for leaked secrets recognize it.
KEY_PREFIX = "vq_"

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_HASH = re.compile(r"[0-9a-f]{64}")


def generate_key(name: str, scopes: Iterable[Scope], namespace: str = ALL) -> tuple[str, ApiKey]:
    """Return a new key, which is not stored, and its configuration. Raises ValueError."""
    key = generate_secret()
    return key, parse_key(ApiKey(name, frozenset(scopes), hash_key(key), namespace).as_setting())


def generate_secret() -> str:
    """Return a new secret, which is what callers send."""
    return KEY_PREFIX + secrets.token_urlsafe(32)


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
            "each key is name:scope+scope:hash, as `voicequeue keys new --print-only` prints it"
        )
    if not (names := set(scopes.split("+"))) <= set(Scope):
        raise ValueError(f"the scopes of {name!r} must be of {', '.join(Scope)}, joined by +")
    if not _HASH.fullmatch(digest):
        raise ValueError(f"the hash of {name!r} must be 64 hex digits, as `voicequeue keys new --print-only` prints it")
    try:
        namespace = namespace_name(namespace) if at and namespace != ALL else ALL
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
