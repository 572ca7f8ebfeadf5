"""The local token: the API key of a gateway without configured keys, in a file that only its user can read."""

from __future__ import annotations

import re
from contextlib import suppress
from pathlib import Path

from voicequeue.auth import api_keys
from voicequeue.auth.api_keys import ApiKey, Scope
from workers import private_files
from workers.private_files import UnsafeFileError

#: The name of this key in logs and on the page.
NAME = "local"

_WELL_FORMED = re.compile(r"[A-Za-z0-9_-]{32,200}")


def ensure(file: Path) -> str:
    """Return the token in this file; write a new one if there is none, or if other users may have read it."""
    with suppress(UnsafeFileError):
        return read(file)
    token, _ = api_keys.generate_key(NAME, Scope)
    private_files.write(file, f"{token}\n")
    return token


def read(file: Path) -> str:
    """Return the token in this file. Raises UnsafeFileError."""
    text = private_files.read(file)
    if not _WELL_FORMED.fullmatch(text):
        raise UnsafeFileError(f"{file} must contain 32 to 200 characters of A-Z, a-z, 0-9, '-' and '_'")
    return text


def key(file: Path) -> ApiKey:
    """Return the API key of the token in this file; it has every scope. Raises UnsafeFileError."""
    return ApiKey(NAME, frozenset(Scope), api_keys.hash_key(read(file)))
